"""Who goes where, what launchers say, and what is refused in one line before anything starts."""

import pytest

from mlbits.cli import main
from mlbits.selfplay.league.learners import divided
from mlbits.selfplay.runs.config import ConfigError, RunConfig
from mlbits.selfplay.shards import places
from mlbits.selfplay.shards.crew import meet
from mlbits.selfplay.shards.launcher import Launched, launched
from mlbits.selfplay.shards.places import check_same, number_of_workers, plan

CARTPOLE = ["train", "ppo", "mlbits/CartPole-v0", "--num-envs", "8"]
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (4, 1), (4, 2), (4, 3), (4, 4), (7, 3)])
def test_every_shard_has_one_place(shards, workers):
    found = divided(shards, workers)
    assert [k for part in found for k in part] == list(range(shards))
    sizes = [len(part) for part in found]
    assert len(found) == workers
    assert max(sizes) - min(sizes) <= 1


def test_launchers_are_read_from_the_environment():
    assert launched(TORCHRUN) == Launched(1, 4, "node0:29500")
    slurm = {"SLURM_PROCID": "2", "SLURM_NTASKS": "8", "MASTER_ADDR": "node0", "MASTER_PORT": "1"}
    assert launched(slurm) == Launched(2, 8, "node0:1")
    assert launched({**slurm, **TORCHRUN}) == Launched(1, 4, "node0:29500")
    assert launched({}) is None
    assert launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) is None  # a batch job's own shell
    assert launched({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None
    assert launched({**slurm, "RANK": "1"}) == Launched(2, 8, "node0:1")  # one source for both numbers
    assert launched({"RANK": "3"}) is launched({"WORLD_SIZE": "4"}) is None  # another program's
    assert launched({"MASTER_ADDR": "node0", "MASTER_PORT": "1"}) is None  # a batch job's own shell


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"MASTER_PORT": ""}, "MASTER_PORT: got '' beside MASTER_ADDR node0; wanted a number"),
        ({"RANK": "x"}, "RANK: got 'x'"),
        ({"RANK": "4"}, "RANK: got 4 of 4 processes .*; wanted 0 to 3"),
        ({"RANK": ""}, "RANK: missing beside MASTER_ADDR node0; wanted RANK and WORLD_SIZE, or neither"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE: missing beside MASTER_ADDR node0"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR: missing beside RANK 1 and WORLD_SIZE 4; wanted the driver's host"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT: got 65536; wanted a port from 1 to 65535"),
    ],
)
def test_launchers_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        launched({**TORCHRUN, **changed})


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"])
def test_tasks_of_srun_that_do_not_know_where_to_meet_do_not_all_train_the_run(name, monkeypatch):
    assert number_of_workers(RunConfig(shards=4, num_envs=8), None) == 1
    monkeypatch.setenv(name, "3")
    with pytest.raises(ConfigError, match=r"^MASTER_ADDR: missing, and srun started several processes"):
        number_of_workers(RunConfig(shards=4, num_envs=8), None)
    assert number_of_workers(RunConfig(num_envs=8), None) == 1  # runs of their own, such as one seed for each task


def test_as_many_workers_as_cores_or_shards(monkeypatch):
    monkeypatch.setattr(places, "usable_cores", lambda: 3)
    run = {"device": "cpu", "num_envs": 8}
    assert number_of_workers(RunConfig(shards=4, workers=0, **run), None) == 3
    assert number_of_workers(RunConfig(shards=2, workers=0, **run), None) == 2
    assert number_of_workers(RunConfig(shards=4, workers=4, **run), None) == 4
    assert number_of_workers(RunConfig(shards=4, **run), launched(TORCHRUN)) == 4
    with pytest.raises(ConfigError, match=r"^workers: the launcher started 4 for 2 shards"):
        number_of_workers(RunConfig(shards=2, **run), launched(TORCHRUN))
    with pytest.raises(ConfigError, match=r"^workers: got 2, and the launcher started 4"):
        number_of_workers(RunConfig(shards=4, workers=2, **run), launched(TORCHRUN))


def test_a_plan_names_all_copies():
    text = plan(RunConfig(num_envs=12, shards=4), divided(4, 3), None)
    assert text.splitlines() == [
        "12 copies in 4 shards of 3; 3 workers",
        "worker 0: shards 0 to 1, copies 0 to 5 (this process, the driver)",
        "worker 1: shard 2, copies 6 to 8 (a process of this machine)",
        "worker 2: shard 3, copies 9 to 11 (a process of this machine)",
    ]


def test_a_plan_names_the_learners_of_a_league():
    text = plan(RunConfig(num_envs=12, shards=6, pool="league"), divided(6, 2), None)
    assert text.splitlines()[3:] == [
        "a league of 4 learners in 4 groups",
        "group 0: main; shards 0 to 1, worker 0",
        "group 1: main-exploiter; shards 2 to 3, workers 0 to 1",
        "group 2: league-exploiter-1; shard 4, worker 1",
        "group 3: league-exploiter-2; shard 5, worker 1",
    ]
    text = plan(
        RunConfig(num_envs=12, shards=3, pool="league", league_exploiters=1, main_agents=2), divided(3, 1), None
    )
    assert text.splitlines()[2:] == [
        "a league of 4 learners in 3 groups",
        "group 0: main-1 and main-2; shard 0, worker 0",
        "group 1: main-exploiter; shard 1, worker 0",
        "group 2: league-exploiter; shard 2, worker 0",
    ]


def test_a_dry_run_trains_nothing(capsys, tmp_path):
    out = tmp_path / "run"
    words = ["--shards", "4", "--workers", "2", "--dry-run", "--out", str(out)]
    assert main([*CARTPOLE, *words]) == 0
    assert "worker 1: shards 2 to 3, copies 4 to 7" in capsys.readouterr().out
    assert main([*CARTPOLE, "--seed", "5", "--seeds", "3", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 runs, with the seeds 5 to 7, 1 at once; each:",
        "8 copies in 1 shard; 1 worker",
        "worker 0: shard 0, copies 0 to 7 (this process, the driver)",
    ]
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["q-learning", "mlbits/GridWorld-v0", "--shards", "2"],
            "--shards: got 2 with q-learning, which",
        ),
        (["ddpg", "mlbits/CartPole-v0"], "ddpg: got the action space Discrete(2); wanted one that is continuous"),
        (["ppo", "mlbits/GridWorld-v0", "--env.slip", "3"], "--env.slip: got 3.0; wanted a finite number from 0 to 1"),
        (["ppo", "mlbits/CartPole-v0", "--seeds", "0"], "--seeds: got 0; wanted a whole number from 1 to 10,000"),
    ],
)
def test_a_dry_run_refuses_what_training_would_refuse(words, said, capsys):
    assert main(["train", *words, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mlbits", "torch", "numpy", "processor"])
def test_processes_that_would_compute_other_bits_are_refused(name):
    facts = places.about_this_process()
    check_same([facts, facts])
    with pytest.raises(ConfigError, match=f"^workers: worker 1 has the {name} other, the driver "):
        check_same([facts, {**facts, name: "other"}])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shards", "3"], "--shards: got 3, which do not divide the 8 copies"),
        (["--workers", "2"], "--workers: got 2 for 1 shard; wanted at most as many workers as shards"),
        (["--shards", "2", "--workers", "4"], "--workers: got 4 for 2 shards"),
    ],
)
def test_workers_and_shards_that_do_not_fit_are_one_line(words, said, capsys, tmp_path):
    assert main([*CARTPOLE, *words, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("q-learning mlbits/GridWorld-v0", "shards: got 2 with q-learning, which learns in one"),
        ("sb3-ppo CartPole-v1", "shards: got 2 with sb3-ppo, whose training has a loop of its own"),
        ("dqn mlbits/CartPole-v0 --agent.batch-size 33", "agent.batch_size: got 33 for 2 shards"),
        ("ppo mlbits/Blotto-v0 --pool league --league-exploiters 8", "num_envs: got 8 in 2 shards of 4, each for up"),
    ],
)
def test_agents_that_do_not_learn_in_shards_are_refused(words, said, capsys, tmp_path):
    flags = ["--num-envs", "8", "--shards", "2", "--preset", "none", "--out", str(tmp_path / "run")]
    assert main(["train", *words.split(), *flags]) == 2
    heard = capsys.readouterr().err
    for name in ("agent.batch_size", "shards", "num_envs"):
        heard = heard.replace(f"--{name.replace('_', '-')}", name)
    assert said in heard
    assert len(heard.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_address_that_does_not_answer_is_said():
    with pytest.raises(ConfigError, match=r"^MASTER_ADDR: 127.0.0.1:9 does not answer .*; wanted the address"):
        meet(Launched(1, 2, "127.0.0.1:9"), 0.3)


def test_processes_that_do_not_come_are_said():
    with pytest.raises(ConfigError, match=r"^workers: not all 2 came to 127.0.0.1:\d+ within 1 seconds"):
        meet(Launched(0, 2, f"127.0.0.1:{_free_port()}"), 1.0)


def _free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
