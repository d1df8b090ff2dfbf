"""Reproductions: when their target counts as met."""

import json
import sys

import pytest

from mlbits.cli import main
from mlbits.evals import EVALS, EvalEntry
from mlbits.evals.optimal_return import reference_returns
from mlbits.evals.reproductions import cartpole, gridworld
from mlbits.evals.reproductions.reproduction import ReproductionError, train_in_process


def summaries(monkeypatch, module, make):
    """Replace training by summaries that are made from the seed."""
    asked = []

    def train(agent, env, seed, *flags):
        asked.append((agent, env, seed, *flags))
        return make(seed)

    monkeypatch.setattr(module, "train_in_process", train)
    return asked


@pytest.mark.parametrize(("share", "seconds", "met"), [(0.951, 59.0, True), (0.949, 59.0, False), (0.951, 61.0, False)])
def test_the_gridworld_target_holds_for_every_seed(monkeypatch, share, seconds, met):
    optimum = reference_returns(gridworld.ENV).optimum

    def made(seed):
        last = seed == 4
        return {
            "return_mean": optimum * (share if last else 1.0),
            "wall_seconds": seconds if last else 1.0,
            "cpu_seconds": 1.0,
        }

    asked = summaries(monkeypatch, gridworld, made)
    result = gridworld.reproduce()
    assert result["met"] is met
    assert result["optimum"] == optimum
    assert result["rows"][4]["share"] == pytest.approx(share)
    assert [row["seed"] for row in result["rows"]] == [seed for _, _, seed, *_ in asked] == [0, 1, 2, 3, 4]
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("steps", "cpu", "met"),
    [
        ([20_000, 29_000, 30_000, 90_000, None], 5.0, True),  # the median counts, unsolved as infinite
        ([20_000, 29_000, 31_000, 90_000, None], 5.0, False),
        ([20_000, None, 30_000, None, None], 5.0, False),
        ([20_000] * 5, 6.1, False),
    ],
)
def test_the_cartpole_target_is_for_medians(monkeypatch, steps, cpu, met):
    def made(seed):
        found = steps[seed]
        return {"solved_at": found and {"env_steps": found, "cpu_seconds": cpu, "wall_seconds": cpu}}

    summaries(monkeypatch, cartpole, made)
    assert cartpole.reproduce()["met"] is met


def test_the_exit_status_is_one_if_the_target_is_missed(monkeypatch, tmp_path, capsys):
    for share, status, said in ((1.0, 0, "target met"), (0.5, 1, "target missed")):
        optimum = reference_returns(gridworld.ENV).optimum
        made = {"return_mean": share * optimum, "wall_seconds": 1.0, "cpu_seconds": 1.0}
        summaries(monkeypatch, gridworld, lambda seed, made=made: made)
        file = tmp_path / "result.json"
        assert main(["reproduce", "gridworld", "--quick", "--json", str(file)]) == status
        assert said in capsys.readouterr().out
        result = json.loads(file.read_text())
        assert result["met"] is (status == 0)
        assert len(result["rows"]) == 1


def measured(quick: bool = False, copies: int = 3, names: tuple[str, ...] = ()) -> dict:
    """Record the arguments.

    Args:
        quick: less.
        copies: how many copies there are.
        names: which.
    """
    return {"met": True, "asked": [quick, copies, list(names)]}


def test_parameters_of_a_reproduction_are_its_flags(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(EVALS, "measured", EvalEntry("tests.evals.reproductions.test_reproduction:measured", ""))
    file = tmp_path / "result.json"
    for words, asked in (
        (["measured"], [False, 3, []]),
        (["measured", "--quick", "--copies", "5", "--names", "a", "b"], [True, 5, ["a", "b"]]),
        (["--quick", "measured", "--copies", "2"], [True, 2, []]),
    ):
        assert main(["reproduce", *words, "--json", str(file)]) == 0
        assert json.loads(file.read_text())["asked"] == asked
    assert main(["reproduce", "measured", "--help"]) == 0
    assert "how many copies there are" in capsys.readouterr().out
    for words, said in (
        (
            ["measured", "--copis", "3"],
            "unknown flag --copis; did you mean --copies? See mlbits reproduce measured",
        ),
        (["measured", "--copies", "x"], "--copies: got 'x'; wanted a whole number"),
        (["gridworld", "--copies", "3"], "unknown flag --copies"),
        (["measurd", "--copies", "3"], "unknown evaluation 'measurd'; did you mean 'measured'?"),
    ):
        assert main(["reproduce", *words]) == 2
        assert said in capsys.readouterr().err


FLAGS = ["--preset", "none", "--total-steps", "64", "--num-envs", "4", "--agent.num-steps", "16", "--no-video"]


@pytest.mark.slow
def test_training_in_a_process_returns_its_summary():
    assert train_in_process("ppo", "mlbits/GridWorld-v0", 3, *FLAGS)["env_steps"] == 64


@pytest.mark.slow
def test_training_in_a_process_returns_its_errors():
    with pytest.raises(ReproductionError, match=r"train ppo mlbits/GridWorld-v0 .*failed: error: --env.map: "):
        train_in_process("ppo", "mlbits/GridWorld-v0", 3, *FLAGS, "--env.map", "x")


def test_a_reproduction_of_ones_own_is_found_by_its_module(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("mlbits.evals.registry.EVALS", EVALS.copy())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reproduction_of_mine.py").write_text(
        "from mlbits.evals import EvalEntry, register_eval\n"
        "register_eval('mine', EvalEntry('tests.evals.reproductions.test_reproduction:measured', ''))\n"
    )
    assert main(["reproduce", "reproduction_of_mine:mine", "--copies", "7", "--json", "result.json"]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["asked"] == [False, 7, []]
    assert main(["reproduce", "reproduction_of_mine:yours"]) == 2
    assert "unknown evaluation 'yours'" in capsys.readouterr().err
    assert main(["reproduce", "no_such_module:mine"]) == 2
    assert "no_such_module:mine: the module 'no_such_module' cannot be imported" in capsys.readouterr().err
