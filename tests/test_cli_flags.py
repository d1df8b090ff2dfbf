"""Flags: whole numbers, one form for settings of environments, names in messages, help in plain text."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from mlbits.agents import AGENTS
from mlbits.cli import COMMANDS, main
from mlbits.envs.registry import registered
from mlbits.evals import EVALS
from mlbits.selfplay.runs.command_line import flag_names, forget_flags, in_flags, plain, whole_number
from mlbits.selfplay.runs.config import RunConfig
from mlbits.selfplay.runs.flags import parse_solve, parse_train

GRID = "mlbits/GridWorld-v0"
TINY = ["--preset", "none", "--total-steps", "1e2", "--num-envs", "4", "--eval-episodes", "2", "--no-video", "--quiet"]
TINY += ["--agent.num-steps", "8", "--agent.hidden", "8"]


@pytest.fixture
def refused(capsys):
    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        return capsys.readouterr().err.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def printed(capsys):
    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


# Whole numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100000", 100_000), ("100_000", 100_000), ("1e5", 100_000), ("1E5", 100_000), ("1.5e3", 1500), ("2.0", 2),
        ("100k", 100_000), ("1.5M", 1_500_000), ("2G", 2_000_000_000), ("-3", -3), ("0", 0), ("+7", 7), ("1e0", 1),
        ("9007199254740993", 9_007_199_254_740_993),  # no float64 has this value
        ("9.007199254740993e15", 9_007_199_254_740_993),
    ],
)  # fmt: skip
def test_notations_of_whole_numbers(text, number):
    got = whole_number(text)
    assert got == number
    assert type(got) is int


@pytest.mark.parametrize("text", ["1.5", "1e-3", "many", "", "k", "1e400", "1e999999999", "nan", "inf", "0x10", "1 0"])
def test_other_numbers_are_refused(text):
    with pytest.raises(ValueError, match="wanted a whole number, as in 100000, 100_000, 1e5 or 100k"):
        whole_number(text)


def test_every_flag_for_a_whole_number_takes_them():
    words = "--total-steps 1e6 --num-envs 1e2 --agent.num-steps 1_0 --agent.hidden 1e2 2k --env.horizon 9e1"
    settings, _, _ = parse_train(["ppo", GRID, *words.split()])
    assert (settings.run.total_steps, settings.run.num_envs) == (1_000_000, 100)
    assert (settings.agent_config.num_steps, settings.agent_config.hidden) == (10, (100, 2000))
    assert settings.env_settings == {"horizon": 90}
    assert parse_solve([GRID, "--state-limit", "1e6"])[2].state_limit == 1_000_000


def test_a_fraction_names_its_flag(refused):
    for flag in ("--total-steps", "--agent.num-steps", "--env.horizon"):
        said = refused("train", "ppo", GRID, flag, "1.5")
        assert said.startswith(f"{flag}: got '1.5'; wanted a whole number, as in 100000, 100_000, 1e5 or 100k")


# Names


def test_messages_name_flags_on_the_command_line_and_arguments_in_python():
    with pytest.raises(ValueError, match=r"^total_steps: got 0"):
        RunConfig(total_steps=0)
    parse_train(["ppo", GRID])
    assert in_flags("total_steps: got 0; wanted more") == "--total-steps: got 0; wanted more"
    assert in_flags("agent.num_steps: got 0") == "--agent.num-steps: got 0"
    assert in_flags("num_envs and agent.num_steps: few") == "--num-envs and --agent.num-steps: few"
    assert in_flags("slip: got 2") == "--env.slip: got 2"
    assert (
        in_flags("pool_fraction: got 1, more copies (num_envs)") == "--pool-fraction: got 1, more copies (--num-envs)"
    )
    # Neither paths nor values nor other words are flags.
    for said in ("a/num_envs: missing", "x: got 'num_envs'", "num_envs/x: bad", "the seed is odd", "learning: slow"):
        assert in_flags(said) == said
    forget_flags()
    assert in_flags("total_steps: got 0") == "total_steps: got 0"


def test_flags_have_the_names_of_their_fields():
    assert flag_names(RunConfig)["eval_every"] == "--eval-every"


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (
            "train ppo {grid} --opponents random --opponent-fraction 0.5",
            "--opponents: mlbits/GridWorld-v0 has one seat",
        ),
        ("train ppo {grid} --env.slip 2", "--env.slip: got 2.0; wanted"),
        ("solve {grid} --discount 2", "--discount: "),
        ("bench gridworld --seconds 0", "--seconds: got 0.0"),
        ("tournament random", "entries: got 1; wanted two or more"),
        ("exploit random --env mlbits/Blotto-v0 --method trained --episodes 0", "--episodes: got 0"),
        ("tournament random random --games 0", "--games: got 0; wanted"),
    ],
)
def test_every_command_names_its_flags(refused, words, start):
    assert refused(*words.format(grid=GRID).split()).startswith(start)


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [("--no-vido", "--no-video"), ("--vidoe", "--video"), ("--total-step", "--total-steps"), ("--quite", "--quiet")],
)
def test_a_suggestion_is_one_flag(refused, flag, nearest):
    assert f"; did you mean {nearest}? See " in refused("train", "ppo", GRID, flag)


# Settings of environments


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my runs") / "one run"
    words = ["train", "ppo", GRID, *TINY, "--out", str(folder), "--env.map", "S.G", "--env.horizon", "9"]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def blotto(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "blotto"
    assert main(["train", "ppo", "mlbits/Blotto-v0", *TINY, "--out", str(folder), "--env.coins", "4"]) == 0
    return folder


def test_eval_takes_settings_as_train_does(printed, refused, run):
    one = printed("eval", run, "--episodes", "3", "--env.step-cost", "5", "--env.horizon", "1")
    assert one.startswith("return -5 over 3 episodes (")
    other = printed("eval", run, "--episodes", "3", "--env-json", '{"step_cost": 5.0, "horizon": 1}')
    assert other == one
    assert "did you mean --env.slip?" in refused("eval", run, "--env.slp", "0.1")
    assert refused("eval", run, "--env.slip", "7").startswith("--env.slip: got 7.0; wanted")
    assert refused("eval", run, "--env-json", '{"slp": 1}').startswith("--env-json: env.slp: unknown setting")
    assert "--env.slip FLOAT" in printed("eval", run, "--help")


def test_train_and_solve_take_json_too(tmp_path, printed):
    settings, _, _ = parse_train(["ppo", GRID, "--env-json", '{"slip": 0.5, "map": "S.G"}', "--env.slip", "0.25"])
    assert settings.env_settings == {"slip": 0.25, "map": "S.G"}
    assert parse_solve([GRID, '--env-json={"slip": 0.5}'])[1] == {"slip": 0.5}


def test_tournaments_and_exploit_take_settings(printed, refused, blotto, tmp_path):
    assert "(exact)" in printed("exploit", blotto)
    said = printed("exploit", "random", "--env", "mlbits/Blotto-v0", "--env.coins", "3", "--json", tmp_path / "a.json")
    same = printed("exploit", "random", "--env", "mlbits/Blotto-v0", "--env-json", '{"coins": 3}')
    assert same == "".join(line for line in said.splitlines(True) if not line.startswith("compiling "))
    out = tmp_path / "t"
    printed("tournament", "random", blotto, "--env.coins", "4", "--games", "4", "--out", out)
    assert json.loads((out / "tournament.json").read_text())["env_settings"] == {"coins": 4}
    assert "trained on" in refused("tournament", "random", blotto, "--env.coins", "5", "--games", "4")


def test_wrapped_environments_take_the_same_form(refused):
    words = "--env.g -5.5 --env.kind slow --env.fast --env.no-safe --env.sizes [1,2] --env.done True".split()
    settings, _, _ = parse_train(["ppo", "Pendulum-v1", *words])
    assert settings.env_settings == {
        "g": -5.5, "kind": "slow", "fast": True, "safe": False, "sizes": [1, 2], "done": True,
    }  # fmt: skip
    assert parse_train(["ppo", "Pendulum-v1"])[0].env_settings == {}
    whole = parse_train(["ppo", "Pendulum-v1", "--env.g", "5"])[0].env_settings["g"]
    assert (whole, type(whole)) == (5.0, float)  # as the constructor's default is
    named = parse_train(["ppo", "FrozenLake-v1", "--env.map-name", "8"])[0].env_settings
    assert named == {"map_name": "8"}
    assert parse_train(["ppo", "Pendulum-v1", "--env-json", '{"g": 5.0}'])[0].env_settings == {"g": 5.0}
    assert "unexpected keyword argument 'gravity'" in refused("train", "ppo", "CartPole-v1", "--env.gravity", "1")


def test_switches_of_our_games_take_values_too():
    for words in (
        ["--env.sutton-barto-reward"],
        ["--env.sutton-barto-reward", "true"],
        ["--env.sutton_barto_reward=True"],
    ):
        settings, _, _ = parse_train(["ppo", "CartPole-v1", *words])
        assert settings.env_settings == {"sutton_barto_reward": True}


# Help


def test_markup_of_docstrings_is_taken_out():
    said = plain("see :func:`~mlbits.selfplay.runs.config.resolve` or ``num_envs`` (:class:`Run`, :mod:`a.b`, `c <d>`)")
    assert said == "see resolve or num_envs (Run, b, c <d>)"


def helps():
    for command in COMMANDS:
        yield [command]
    yield from (["diplomacy", part] for part in ("adjudicate", "draw"))
    yield from (["data", part] for part in ("mix", "split"))
    for agent in AGENTS:
        yield ["train", agent, GRID]
    for env in registered():
        yield ["train", "ppo", env]
        yield ["solve", env]
    for name in EVALS:
        yield ["reproduce", name]


def test_no_help_has_markup_or_colours(printed):
    for words in helps():
        said = printed(*words, "--help")
        assert "usage: mlbits" in said
        for sign in ("``", ":func:", ":class:", ":meth:", ":mod:", "\x1b", "`~"):
            assert sign not in said, (words, sign)


@pytest.mark.slow
def test_colours_only_on_a_terminal_that_wants_them():
    """``script`` and its like are a terminal; a pipe is none."""
    import pty

    def shown(**env):
        parts = []

        def read(end):
            part = os.read(end, 65536)
            parts.append(part)
            return part

        before = dict(os.environ)
        os.environ.update(env)
        try:
            assert pty.spawn([sys.executable, "-m", "mlbits", "eval", "--help"], read, lambda _: b"") == 0
        finally:
            os.environ.clear()
            os.environ.update(before)
        return b"".join(parts)

    assert b"\x1b" in shown(TERM="xterm")
    assert b"\x1b" not in shown(TERM="xterm", NO_COLOR="1")


# Hints


def test_hints_can_be_pasted_into_a_shell(printed, refused, run):
    said = printed("resume", run, "--total-steps", "200")
    hints = [line.partition(": ")[2] for line in said.splitlines() if line.startswith(("curves:", "evaluate:"))]
    assert [shlex.split(hint)[-1] for hint in hints] == [str(run.parent), str(run)]
    again = refused("train", "ppo", GRID, *TINY, "--out", run).rpartition("mlbits resume ")[2].rstrip(")")
    assert shlex.split(again) == [str(run)]


def test_a_finished_run_says_so(printed, blotto):
    before = {path: path.read_bytes() for path in blotto.rglob("*") if path.is_file()}
    said = printed("resume", blotto)
    steps = json.loads((blotto / "summary.json").read_text())["env_steps"]
    assert said.startswith(f"{blotto} is finished: it has its {steps:,} steps; nothing was done\n")
    assert f"to train longer: mlbits resume {shlex.quote(str(blotto))} --total-steps {2 * steps}" in said
    assert printed("resume", blotto, "--total-steps", "5") == said  # an end that is past already
    assert {path: path.read_bytes() for path in blotto.rglob("*") if path.is_file()} == before


def test_an_end_that_is_past_already_is_said(printed, run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    (run / "summary.json").unlink()  # as after an interrupted run
    steps = max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    said = printed("resume", run, "--total-steps", "5")
    assert said.startswith(f"{run} has {steps:,} steps, more than --total-steps 5: it ends with those\n")
    assert json.loads((run / "config.json").read_text())["run"]["total_steps"] == steps  # what repeats it


def test_names_of_agents_are_no_runs(refused):
    said = refused("eval", "mcts@simulations=9", "mlbits/TicTacToe-v0")
    assert said.startswith("run: got the bot mcts@simulations=9; wanted the folder of a run.")
    assert "mlbits exploit mcts@simulations=9 --env ENV" in said
    assert refused("eval", "ppo").startswith("run: got ppo, an agent that has not been trained; wanted the folder")


def test_animations_have_the_format_of_their_suffix(printed, refused, run, tmp_path):
    from PIL import Image

    for suffix, kind in ((".gif", "GIF"), (".webp", "WEBP"), (".png", "PNG"), (".APNG", "PNG")):
        file = tmp_path / f"a b{suffix}"
        printed("eval", run, "--episodes", "1", "--gif", file)
        with Image.open(file) as picture:
            assert (picture.format, picture.n_frames > 1) == (kind, True)
    for name in ("x.mp4", "x", "gif"):
        said = refused("eval", run, "--gif", tmp_path / name)
        assert said == f"--gif: got {tmp_path / name}; wanted a file name that ends in .gif, .webp, .png, .apng"
        assert not (tmp_path / name).exists()


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "mlbits", "list", "env"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: unknown list 'env'; did you mean 'envs'?\n")


def test_bots_are_refused_as_learners_by_their_name(refused, tmp_path):
    said = refused("train", "random", GRID, "--out", tmp_path / "run")
    assert said.startswith("random: got a bot, which does not learn; wanted an agent that does")


def test_singular_for_one(printed, run):
    said = printed("eval", str(run), "--episodes", "1")
    assert " over 1 episode (no 95% interval from a single value); checkpoint" in said
