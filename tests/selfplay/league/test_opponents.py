"""Pools and leagues: frozen copies do not change, seats change only between episodes, each learns from its own."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mlbits import cli
from mlbits.agents.agent import content_hash, split_optimizers
from mlbits.envs import registry
from mlbits.envs.core.errors import UnknownIdError
from mlbits.selfplay.bookkeeping import Clock, _note_episodes
from mlbits.selfplay.runs.checkpoints import CheckpointError
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.runs.saved_agents import SavedAgentError, open_guest, read_copy
from mlbits.selfplay.session import open_session
from mlbits.selfplay.training import resume, train
from tests.games import register_test_games

register_test_games()
THROWS, NIM, MATRIX = "test/Throws-v0", "test/Nim-v0", "mlbits/MatrixGame-v0"
SHORT = {"num_envs": 24, "device": "cpu", "video": False, "pool_every": 1, "eval_episodes": 2}


def session_of(env=THROWS, agent="ppo", steps=8, **run):
    agent_settings = {"num_steps": steps, "hidden": [8]} | ({"epochs": 1, "minibatches": 1} if agent == "ppo" else {})
    return open_session(resolve(agent, env, preset="none", run=SHORT | run, agent_settings=agent_settings))


def turn(session):
    """One iteration of the loop, without records."""
    rollout, episodes, steps = session.collect()
    session.learn(rollout)
    session.counters.env_steps += steps
    session.opponents.note(episodes, session.counters.env_steps)
    return rollout, episodes


class Watched:
    """Passes everything on, and counts the rows of each call."""

    def __init__(self, agent):
        self.agent, self.asked = agent, []

    def __getattr__(self, name):
        return getattr(self.agent, name)

    def act(self, obs, mask, generator, *, greedy=False):
        self.asked.append(len(obs))
        return self.agent.act(obs, mask, generator, greedy=greedy)


def as_if_new(agent):
    """The hash of an agent with its weights and new optimisers, as copies are frozen."""
    other = session_of().learner
    other.load_state_dict(split_optimizers(agent.state_dict())[0] | split_optimizers(other.state_dict())[1])
    return content_hash(other)


def test_frozen_copies_stay_as_they_were_while_the_learner_learns():
    session = session_of(pool="uniform")
    opponents, seen = session.opponents, [as_if_new(session.learner)]
    for _ in range(3):
        turn(session)
        seen.append(as_if_new(session.learner))
    assert len(set(seen)) == 4  # it did learn
    assert [copy.hash for copy in opponents.copies] == seen  # the first before anything was learnt
    assert [content_hash(opponents.agents[copy.number]) for copy in opponents.copies] == seen


def copy_of(run, number):
    """The file of a frozen copy."""
    [file] = (run / "pool").glob(f"copy-{number:04d}-*.safetensors")
    return file


def test_frozen_copies_hold_weights_alone(run, tmp_path):
    """As large as the weights; of one that holds its learner's optimiser, as older versions wrote it, both are read."""
    file = copy_of(run, 1)
    agent = read_copy(file, MATRIX)
    weights, kept = split_optimizers(agent.state_dict())
    assert sorted(kept) == ["optimizer.first", "optimizer.second", "optimizer.steps"]
    assert set(load_file(file)) == set(weights)
    assert not any(kept[name].any() for name in kept)
    full = {**weights, **{name: torch.full_like(tensor, 3) for name, tensor in kept.items()}}
    agent.load_state_dict(full)
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["mlbits"])
    old = tmp_path / "old.safetensors"
    save_file(full, old, {"mlbits": json.dumps(about | {"version": "1", "hash": content_hash(agent)})})
    assert content_hash(read_copy(old, MATRIX)) == content_hash(agent)


def test_fractions_of_guests_pool_and_self_play():
    session = session_of(pool="uniform", opponents=("random",), opponent_fraction=0.25, pool_fraction=0.5)
    seating = session.lineup.seating  # 0 the learner, 1 the guest, 2 the frozen copy
    own = torch.zeros(24, 3, dtype=torch.bool)
    own[torch.arange(18), torch.cat([torch.arange(6), torch.arange(6, 18)]) % 3] = True
    assert torch.equal(seating[:18] == 0, own[:18])
    assert seating[:6].unique().tolist() == [0, 1]
    assert seating[6:18].unique().tolist() == [0, 2]
    assert not seating[18:].any()


@pytest.mark.parametrize("env", [THROWS, NIM])
def test_seats_change_when_episodes_end_and_the_learner_learns_from_its_own(env):
    session = session_of(env, pool="uniform", pool_fraction=0.75, pool_draws=4)
    for _ in range(3):
        turn(session)
    opponents, lineups = session.opponents, []
    reseat = opponents.reseat
    opponents.reseat = lambda ended: lineups.append((ended.clone(), reseat(ended))) or lineups[-1][1]
    before, acting = session.lineup.seating, session.batch.active
    rollout, episodes = turn(session)
    assert lineups
    changed = 0
    for ended, lineup in lineups:
        moved = (lineup.seating != before).any(1)
        assert not (moved & ~ended).any()
        changed += int(moved.sum())
        before = lineup.seating
    assert changed
    own = lineups[-1][1].learner_seats()  # the learner's own seats are always the same
    assert own[:18].sum(1).tolist() == [1] * 18
    if acting is None:
        assert torch.equal(rollout.active, own.expand_as(rollout.active))
    else:
        assert not (rollout.active & ~own).any()
        assert (rollout.active.sum(2) <= 1)[:, :18].all()
    ends = int((rollout.terminated | rollout.truncated).sum())
    assert len(episodes.seating) == len(episodes.seat_returns) == len(episodes.returns) == ends
    mine = np.where(episodes.seating == 0, episodes.seat_returns, 0).sum(1) / (episodes.seating == 0).sum(1)
    assert np.allclose(episodes.returns, mine)


def test_results_count_for_the_players_of_the_whole_episode():
    """Rock-paper-scissors against frozen players of one action each: the learner's results show which they were."""
    session = session_of(MATRIX, pool="uniform", pool_fraction=1.0, pool_draws=64, num_envs=300)
    for _ in range(2):
        turn(session)
    opponents = session.opponents
    for copy in opponents.copies:  # bias the policy's last layer until it plays one action
        agent, action = opponents.agents[copy.number], copy.number % 3

        def always(obs, mask, generator, *, greedy=False, action=action, act=agent.act):
            decision = act(obs, mask, generator, greedy=greedy)
            return decision._replace(action=torch.full_like(decision.action, action))

        agent.act = always
    living = session.learner.act
    session.learner.act = lambda *rest, **more: living(*rest, **more)._replace(
        action=torch.zeros(len(rest[0]), dtype=torch.int64)
    )  # rock
    opponents.payoffs.wins[:] = opponents.payoffs.draws[:] = 0
    rollout, episodes, _ = session.collect()
    opponents.payoffs.add(episodes.seating, episodes.seat_returns)
    for copy in opponents.copies:
        wanted = {0: 0.5, 1: 0.0, 2: 1.0}[copy.number % 3]  # a draw, lost to paper, won against scissors
        assert opponents.payoffs.meetings[0, copy.number] > 100
        assert opponents.payoffs.win_rate(0)[copy.number] == wanted
    assert set(rollout.reward[rollout.active].unique().tolist()) == {-1.0, 0.0, 1.0}


def test_each_network_runs_once_per_step():
    session = session_of(MATRIX, pool="uniform", pool_fraction=0.5, pool_draws=64, num_envs=120)
    for _ in range(4):
        turn(session)
    opponents = session.opponents
    opponents.agents = [Watched(agent) for agent in opponents.agents]
    opponents.learners = opponents.agents[:1]
    session.learner = opponents.agents[0]
    opponents.lineup = opponents._new_lineup()
    session.collect()
    assert len(opponents.copies) == 5
    asked = [agent.asked for agent in opponents.agents]
    assert [len(rows) for rows in asked] == [8, 8, 8, 8, 8, 7]  # the newest is seated once the first episodes end
    assert sum(map(sum, asked)) == 8 * 240


def test_pool_latest_meets_the_latest_copy():
    session = session_of(MATRIX, pool="latest", pool_fraction=1.0)
    for _ in range(3):
        turn(session)
    session.collect()
    assert session.lineup.seating.unique().tolist() == [0, session.opponents.copies[-1].number]


def test_pfsp_meets_strong_copies_more_often():
    session = session_of(MATRIX, pool="pfsp", pool_fraction=1.0, pool_draws=2000, pool_weighting="linear")
    for _ in range(2):
        turn(session)
    opponents = session.opponents
    for number, won in zip((1, 2, 3), (0.9, 0.6, 0.0), strict=True):
        opponents.payoffs.wins[0, number], opponents.payoffs.wins[number, 0] = 100 * won, 100 * (1 - won)
        opponents.payoffs.draws[0, number] = opponents.payoffs.draws[number, 0] = 0
    opponents.draw()
    shares = np.bincount(opponents._draws[0], minlength=4) / 2000
    assert shares[1:] == pytest.approx(np.array([0.1, 0.4, 1.0]) / 1.5, abs=0.04)


# The league


def test_every_learner_of_a_league_learns_from_its_own_copies():
    session = session_of(pool="league", main_agents=1, main_exploiters=1, league_exploiters=2)
    opponents = session.opponents
    assert opponents.names[:4] == ["main", "main-exploiter", "league-exploiter-1", "league-exploiter-2"]
    assert opponents.ranges == [(0, 6), (6, 12), (12, 18), (18, 24)]
    given = {}

    def listening(number, learner):
        learn = learner.learn
        learner.learn = lambda rollout, *rest: given.__setitem__(number, rollout) or learn(rollout, *rest)

    for number, learner in enumerate(opponents.learners):
        listening(number, learner)
    before = [content_hash(learner) for learner in opponents.learners]
    assert len(set(before)) == 4  # each has first weights of its own
    rollout, _, _ = session.collect()
    session.learn(rollout)
    for number, part in given.items():
        first, last = opponents.ranges[number]
        assert torch.equal(part.reward, rollout.reward[:, first:last])
        assert torch.equal(part.active, rollout.active[:, first:last])
        assert part.last_obs.shape[0] == last - first
    assert all(content_hash(learner) != was for learner, was in zip(opponents.learners, before, strict=True))
    own = opponents.lineup.learner_seats()
    assert own.any(1).all()
    assert (opponents.lineup.seating[own] == opponents.lineup.owner[:, None].expand(24, 3)[own]).all()


def test_the_training_return_of_a_league_is_that_of_the_runs_agent():
    session = session_of(pool="league", steps=60, solved_episodes=1000)
    rollout, episodes, _ = session.collect()
    ended = rollout.terminated | rollout.truncated
    assert ended.any(0).all()  # in every copy, of all four learners
    _note_episodes(session, episodes, Clock(session))
    assert len(session.recent) == int(ended[:, :6].sum())
    own = session.opponents.lineup.owner[ended.nonzero()[:, 1]] == 0
    assert list(session.recent) == episodes.returns[own.numpy()].tolist()


@pytest.mark.parametrize(
    ("agent", "settings"),
    [("trpo", {"num_steps": 8, "hidden": [8]}), ("reinforce", {"num_steps": 8, "hidden": [8]}), ("q-learning", {})],
)
def test_all_on_policy_agents_can_form_leagues(agent, settings):
    session = open_session(resolve(agent, MATRIX, preset="none", run=SHORT | {"pool": "league"},
                                   agent_settings=settings))  # fmt: skip
    learners = session.opponents.learners
    before = [content_hash(learner) for learner in learners]
    rollout, _, _ = session.collect()
    session.learn(rollout)
    assert all(content_hash(learner) != was for learner, was in zip(learners, before, strict=True))


def test_a_league_freezes_copies_and_resets_exploiters():
    session = session_of(pool="league", main_exploiters=1, league_exploiters=1)
    opponents = session.opponents
    first = content_hash(opponents.learners[1])
    for _ in range(4):
        turn(session)
    parents = [copy.parent for copy in opponents.copies]
    assert parents[:3] == [0, 1, 2]
    assert parents.count(0) == parents.count(1) == parents.count(2) > 2
    assert content_hash(opponents.learners[1]) == first  # just frozen, and so just reset
    assert content_hash(opponents.learners[0]) != opponents.copies[0].hash
    assert opponents.agents[1] is opponents.learners[1]


def test_a_quarter_of_league_exploiters_and_all_main_exploiters_are_reset():
    """Each its own draws: of 400 a quarter is 74 .. 126 all but once in a thousand."""
    session = session_of(pool="league", main_agents=1, main_exploiters=1, league_exploiters=1)
    opponents, begun = session.opponents, [0, 0, 0]
    for step in range(400):
        before = list(opponents.learners)
        for number in range(3):
            opponents._restart(number, step)
            begun[number] += opponents.learners[number] is not before[number]
    assert begun[:2] == [0, 400]
    assert 74 <= begun[2] <= 126


def test_a_reset_learners_results_stay_with_its_copy():
    session = session_of(pool="league", main_exploiters=1, league_exploiters=0, pool_every=100)
    opponents, payoffs = session.opponents, session.opponents.payoffs
    _, episodes, _ = session.collect()
    none = dataclasses.replace(episodes, seating=None, seat_returns=None)
    payoffs.wins[:2, :2] = [[0, 30], [70, 0]]
    payoffs.draws[:2, :2] = [[0, 10], [10, 0]]
    opponents.note(none, 199)
    assert len(opponents.copies) == 2  # the first of both
    opponents.note(none, 200)  # twice as many steps: all are frozen
    main, exploiter = (copy.number for copy in opponents.copies[2:])
    assert opponents.copies[3].parent == 1
    assert not payoffs.meetings[1].any()
    assert not payoffs.meetings[:, 1].any()
    assert payoffs.meetings[exploiter, 0] == 110
    assert payoffs.win_rate(exploiter)[0] == pytest.approx(75 / 110)
    assert payoffs.meetings[main, 1] == 0  # it met one that was replaced


def test_an_exploiters_progress_is_over_its_own_lifetime(monkeypatch):
    monkeypatch.setattr("mlbits.selfplay.league.opponents._RESTART", 1.0)
    session = session_of(
        pool="league", main_agents=2, main_exploiters=1, league_exploiters=1, pool_every=100, total_steps=1000
    )
    opponents = session.opponents
    assert [opponents.progress(number, 50) for number in range(4)] == [0.05, 0.05, 0.25, 0.05]
    for number in range(4):
        opponents._restart(number, 700)
    # A main exploiter is frozen after 200 steps at the latest, a league exploiter continues to the run's end.
    assert [opponents.progress(number, 700) for number in range(4)] == [0.7, 0.7, 0, 0]
    assert [opponents.progress(number, 760) for number in range(4)] == [0.76, 0.76, 0.3, 0.2]
    assert [opponents.progress(number, 1000) for number in range(4)] == [1, 1, 1, 1]
    opponents._restart(2, 950)
    assert opponents.progress(2, 950) == 0
    assert opponents.progress(2, 990) == pytest.approx(0.8)  # the run ends sooner


def test_a_reset_exploiter_learns_at_the_full_rate(tmp_path):
    league = {"pool": "league", "main_exploiters": 1, "league_exploiters": 0, "num_envs": 4}
    session, other = (session_of(**league, total_steps=2000, pool_every=480) for _ in range(2))
    while session.counters.env_steps < 960:
        turn(session)
    assert session.opponents._born_at == [0, 960]
    session.opponents.write(tmp_path)
    other.from_checkpoint(session.to_checkpoint(), tmp_path)
    assert other.opponents.progress(1, 1200) == session.opponents.progress(1, 1200) == 0.25
    given = []
    for number, learner in enumerate(session.opponents.learners):
        learn = learner.learn
        learner.learn = lambda rollout, progress, draws, learn=learn, number=number: (
            given.append((number, progress)) or learn(rollout, progress, draws)
        )
    turn(session)
    turn(session)
    assert given == [(0, 0.48), (1, 0.0), (0, 992 / 2000), (1, 32 / 960)]
    rate = session.opponents.learners[1].core.optimizer.learning_rate
    assert rate == pytest.approx(session.settings.agent_config.learning_rate * (1 - 32 / 960))


def test_invalid_leagues_are_refused():
    with pytest.raises(ConfigError, match="num_envs: got 3 for a league of 4 learners"):
        session_of(pool="league", num_envs=3)
    with pytest.raises(ConfigError, match=r"opponent_fraction and pool_fraction: got 0\.6 and 0\.5"):
        session_of(pool="uniform", opponents=("random",), opponent_fraction=0.6)
    with pytest.raises(ConfigError, match=r"pool: mlbits/GridWorld-v0 has one seat"):
        session_of("mlbits/GridWorld-v0", pool="latest")
    settings = resolve(
        "dqn", MATRIX, preset="none", run=SHORT | {"pool": "league"}, agent_settings={"buffer_size": 1000}
    )
    with pytest.raises(ConfigError, match="a league of dqn, which learns from a replay buffer"):
        open_session(settings)
    with pytest.raises(ConfigError, match="pool_every"):
        session_of(pool="uniform", pool_every=0)
    with pytest.raises(ConfigError, match=r"pool_fraction: got 0\.1 of 4 copies, which leaves none for the pool"):
        session_of(pool="uniform", pool_fraction=0.1, num_envs=4)
    with pytest.raises(ConfigError, match=r"pool_fraction: got 0\.4 of 4 copies, which leaves none"):
        session_of(pool="league", opponents=("random",), opponent_fraction=0.6, num_envs=4)
    with pytest.raises(ConfigError, match=r"opponent_fraction: got 0\.1 of 10 copies, which leaves none for random"):
        session_of(opponents=("random", "random"), opponent_fraction=0.1, num_envs=10)
    session_of(pool="uniform", pool_fraction=0.0)  # frozen copies that are never met, but can be measured


def test_an_off_policy_agent_meets_a_pool_too():
    run = SHORT | {"pool": "uniform", "num_envs": 8}
    agent = {"buffer_size": 2000, "learning_starts": 100, "hidden": [8], "num_steps": 4}
    session = open_session(resolve("dqn", MATRIX, preset="none", run=run, agent_settings=agent))
    for _ in range(12):
        turn(session)
    assert len(session.opponents.copies) == 13


# Files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = resolve(
        "ppo", MATRIX, preset="none",
        run=SHORT | {"pool": "uniform", "total_steps": 500, "pool_every": 192},
        agent_settings={"num_steps": 8, "hidden": [8]},
    )  # fmt: skip
    return train(settings, tmp_path_factory.mktemp("runs") / "run", console=False)[0]


def test_frozen_copies_are_files_that_can_be_opponents(run):
    files = sorted((run / "pool").iterdir())
    hashes = [content_hash(read_copy(file, MATRIX)) for file in files]
    assert [file.name for file in files] == [f"copy-{k:04d}-{one[:12]}.safetensors" for k, one in enumerate(hashes)]
    assert len(files) >= 3
    session = session_of(MATRIX, opponents=(str(files[0]), str(run), "random"), opponent_fraction=0.9)
    assert [type(agent).__name__ for agent in session.opponents.agents] == ["PPO", "PPO", "PPO", "RandomAgent"]
    assert session.opponents.names[1:] == [str(files[0]), str(run), "random"]
    assert content_hash(session.opponents.agents[1]) == content_hash(read_copy(files[0], MATRIX))
    turn(session)
    assert session.opponents.payoffs.meetings[0, 1:].min() > 0


def test_copies_of_another_game_or_version_are_refused(run, tmp_path):
    file = copy_of(run, 0)
    with pytest.raises(SavedAgentError, match="its env is 'mlbits/MatrixGame-v0'; wanted 'mlbits/Blotto-v0'"):
        open_guest(str(file), "mlbits/Blotto-v0")
    with pytest.raises(SavedAgentError, match=r"its env_settings is \{\}; wanted \{'payoffs': 'shapley'\}"):
        open_guest(str(file), MATRIX, {"payoffs": "shapley"})
    with pytest.raises(SavedAgentError, match="not found"):
        open_guest(str(tmp_path / "copy.safetensors"), MATRIX)
    data, broken = file.read_bytes(), tmp_path / "copy-0000.safetensors"
    broken.write_bytes(data[: len(data) // 2])
    with pytest.raises(SavedAgentError, match="damaged"):
        open_guest(str(broken), MATRIX)
    broken.write_bytes(data[:-8] + bytes(8 * [63]))
    with pytest.raises(SavedAgentError, match="damaged: its content does not match its hash"):
        open_guest(str(broken), MATRIX)
    broken.write_bytes(data.replace(rb"\"version\": \"2\"", rb"\"version\": \"9\""))
    with pytest.raises(SavedAgentError, match="its version is '9'; wanted '1' or '2'"):
        open_guest(str(broken), MATRIX)
    said = cli.main(["train", "ppo", "mlbits/Blotto-v0", "--opponents", str(file), "--out", str(tmp_path / "new")])
    assert said == 2
    assert not (tmp_path / "new").exists()


def test_a_copy_fits_with_default_settings_given_or_not(run):
    file = str(copy_of(run, 0))
    assert content_hash(open_guest(file, MATRIX, {"payoffs": "rock_paper_scissors"})) == content_hash(
        open_guest(file, MATRIX)
    )


def test_runs_of_other_environments_are_refused_despite_equal_spaces(run, monkeypatch, tmp_path):
    blotto = resolve("ppo", "mlbits/Blotto-v0", preset="none", run=SHORT | {"total_steps": 1},
                     agent_settings={"num_steps": 8, "hidden": [8]})  # fmt: skip
    train(blotto, tmp_path / "blotto", console=False)
    with pytest.raises(ConfigError, match="was trained on the number of seats 2; wanted 7"):
        open_guest(str(tmp_path / "blotto"), "mlbits/Blotto-v0", {"seats": 7})
    another = dataclasses.replace(registry.entry(MATRIX), id="test/MatrixGame-v9")
    monkeypatch.setitem(registry._entries, another.id, another)
    with pytest.raises(ConfigError, match="on the environment mlbits/MatrixGame-v0; wanted test/MatrixGame-v9"):
        open_guest(str(run), another.id)
    open_guest(str(run), MATRIX, {"payoffs": "shapley"})


def test_an_unknown_name_is_refused():
    with pytest.raises(
        UnknownIdError, match=r"^opponents: unknown player \(no run's folder, .*\) 'runs/mime'; known: "
    ):
        open_guest("runs/mime", MATRIX)


def test_settings_in_a_runs_name_and_environments_are_refused(run):
    for name in (f"{run}@simulations=3", "model.zip@simulations=3"):
        with pytest.raises(ConfigError, match=r"^opponents: got '.*@simulations=3'; wanted '.*': settings after @ are"):
            open_guest(name, MATRIX)
    with pytest.raises(ConfigError, match=f"^opponents: got the environment '{MATRIX}'; wanted bots or folders of"):
        open_guest(MATRIX, MATRIX)


def test_a_run_whose_guest_has_changed_is_refused(run, tmp_path):
    guest, out = tmp_path / "guest", tmp_path / "run"
    shutil.copytree(run, guest)
    settings = resolve(
        "ppo", MATRIX, preset="none", run=SHORT | {"opponents": (str(guest),), "total_steps": 200},
        agent_settings={"num_steps": 8, "hidden": [8]},
    )  # fmt: skip
    train(settings, out, console=False)
    resume(out, total_steps=400, console=False)
    resume(guest, total_steps=700, console=False)
    with pytest.raises(CheckpointError, match=r"opponents: .*guest has changed since the run's checkpoint"):
        resume(out, total_steps=600, console=False)


def test_older_runs_with_bots_can_be_resumed():
    session, other = (session_of(opponents=("random",)) for _ in range(2))
    turn(session)
    checkpoint = session.to_checkpoint()
    del checkpoint.state["opponents"]
    for name in [name for name in checkpoint.arrays if name.startswith("opponents.")]:
        del checkpoint.arrays[name]
    other.from_checkpoint(checkpoint, None)
    assert content_hash(other.learner) == content_hash(session.learner)
    with pytest.raises(CheckpointError, match="the checkpoint lacks what this run needs"):
        session_of(pool="uniform").from_checkpoint(checkpoint, None)


def test_a_run_without_its_pool_cannot_be_resumed(run, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    first, second = copy_of(copied, 0), copy_of(copied, 1)
    first.write_bytes(second.read_bytes())
    with pytest.raises(CheckpointError, match="is not the copy that the run has met"):
        resume(copied, total_steps=1000, console=False)
    first.unlink()
    with pytest.raises(CheckpointError, match=r"copy-0000-\w{12}\.safetensors: not found"):
        resume(copied, total_steps=1000, console=False)


def garbled(file):
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data)


def test_a_damaged_copy_of_the_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    settings = resolve(
        "ppo", MATRIX, preset="none", agent_settings={"num_steps": 8, "hidden": [8]},
        run=SHORT | {"pool": "uniform", "pool_every": 192, "total_steps": 576, "checkpoint_every": 192},
    )  # fmt: skip
    alone, _ = train(settings, tmp_path / "alone", console=False)
    damages = {"flipped": garbled, "gone": Path.unlink, "empty": lambda file: file.write_bytes(b"")}
    for name, damage in damages.items():
        folder = tmp_path / name
        shutil.copytree(alone, folder)
        copies = sorted((folder / "pool").iterdir())
        damage(copies[-1])  # frozen after the last checkpoint but one
        (folder / "summary.json").unlink()
        resume(folder)
        said = capsys.readouterr().out
        newest, before = sorted((folder / "checkpoints").iterdir(), reverse=True)[:2]
        assert f"skipped step {int(newest.name[5:])}: {copies[-1]}: " in said
        assert f"resuming from {before}" in said
        for file in (Path("pool") / copies[-1].name, Path("checkpoints") / newest.name / "weights.safetensors"):
            assert (folder / file).read_bytes() == (alone / file).read_bytes()


def test_a_pool_that_could_not_be_read_changes_nothing(tmp_path):
    """So that an older checkpoint can be restored after it."""
    session = session_of(pool="uniform")
    turn(session)
    state = session.opponents.state()
    with pytest.raises(CheckpointError, match=r"copy-0000-\w{12}\.safetensors: not found"):
        session.opponents.load(tmp_path, {}, state)
    assert len(session.opponents.agents) == 1 + len(session.opponents.copies)
    turn(session)
