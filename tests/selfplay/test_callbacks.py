"""Callbacks see the run and may end it; the best checkpoint is kept; settings end a run; weights are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mlbits.cli import main
from mlbits.selfplay import bookkeeping
from mlbits.selfplay.callbacks import Callbacks, RunUnderWay, callbacks_of
from mlbits.selfplay.episodes import Played
from mlbits.selfplay.runs.checkpoints import CheckpointError
from mlbits.selfplay.runs.config import ConfigError, Settings, resolve
from mlbits.selfplay.runs.folder import finished_summary
from mlbits.selfplay.runs.integrity import check_run
from mlbits.selfplay.runs.loading import load_policy
from mlbits.selfplay.training import resume, train

# Iterations of 16 steps; evaluations and checkpoints at 16, 32, 48 and 64.
RUN = {"total_steps": 64, "num_envs": 4, "eval_every": 16, "checkpoint_every": 16, "eval_episodes": 1, "video": False}
AGENT = {"num_steps": 4, "hidden": (4,), "minibatches": 1, "epochs": 1}


def settings(**run: Any) -> Settings:
    return resolve("ppo", "mlbits/Bandit-v0", preset="none", run={**RUN, **run}, agent_settings=AGENT)


@pytest.fixture
def returns(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the evaluations of a run find given returns, one after another, and then the last one."""

    def told(*values: float) -> None:
        left = list(values)

        def played(*arguments: Any, **more: Any) -> Played:
            value = left.pop(0) if len(left) > 1 else left[0]
            return Played(np.array([[value]]), np.array([1]))

        monkeypatch.setattr(bookkeeping, "play_episodes", played)

    return told


def weights(folder: Path, where: str = "checkpoints") -> dict[str, torch.Tensor]:
    return load_file(max((folder / where).glob("step-*")) / "weights.safetensors")


def kept(folder: Path, where: str = "best") -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in (folder / where).glob("step-*"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_callbacks_see_the_run_and_change_nothing(tmp_path: Path, returns: Callable[..., None]) -> None:
    returns(1.0, 3.0, 2.0)
    seen: list[tuple[str, int, Any]] = []

    class Watcher:
        def on_iteration(self, run: RunUnderWay) -> None:
            assert run.settings.agent == "ppo"
            assert "entropy" in run.metrics
            assert run.progress == run.env_steps / 64
            seen.append(("iteration", run.env_steps, run.iterations))
            run.agent().predict(0, greedy=False)  # draws from a generator of its own

        def on_evaluation(self, run: RunUnderWay) -> None:
            assert run.evaluation is not None
            seen.append(("evaluation", run.env_steps, (run.evaluation["return_mean"], run.is_best)))

    def saved(run: RunUnderWay) -> None:
        assert run.checkpoint is not None
        assert (run.checkpoint / "manifest.json").exists()
        seen.append(("checkpoint", run.env_steps, run.checkpoint.name))

    watched, plain = tmp_path / "watched", tmp_path / "plain"
    train(settings(), watched, console=False, callbacks=callbacks_of(Watcher(), on_checkpoint=saved))
    expected = [(1.0, True), (3.0, True), (2.0, False), (2.0, False)]
    assert seen == [
        entry
        for k in range(1, 5)
        for entry in (
            ("iteration", 16 * k, k),
            ("evaluation", 16 * k, expected[k - 1]),
            ("checkpoint", 16 * k, f"step-{16 * k:012d}"),
        )
    ]
    train(settings(), plain, console=False)
    assert same(weights(watched), weights(plain))


def stop_at(steps: int, moment: str) -> Callbacks | None:
    def ends(run: RunUnderWay) -> None:
        if run.env_steps >= steps:
            run.stop("enough of it")

    return callbacks_of(**{moment: ends})


@pytest.mark.parametrize("moment", ["on_iteration", "on_evaluation", "on_checkpoint"])
def test_a_stopped_run_is_saved_and_goes_on_as_if_it_had_not_been(moment: str, tmp_path: Path) -> None:
    every = {"eval_every": 32, "checkpoint_every": 48}
    folder, summary = train(settings(**every), tmp_path / "run", console=False, callbacks=stop_at(32, moment))
    stopped = 48 if moment == "on_checkpoint" else 32
    assert (summary["env_steps"], summary["stopped"]) == (stopped, "enough of it")
    assert "return_mean" in summary
    assert kept(folder, "checkpoints")[-1] == stopped
    assert finished_summary(folder) is None
    _, summary = resume(folder, console=False)
    assert summary["env_steps"] == 64
    assert "stopped" not in summary
    alone, _ = train(settings(**every), tmp_path / "alone", console=False)
    assert same(weights(folder), weights(alone))


def test_false_ends_a_run_and_other_values_do_not(tmp_path: Path) -> None:
    ends = callbacks_of(on_evaluation=lambda run: run.env_steps < 32)
    _, summary = train(settings(), tmp_path / "a", console=False, callbacks=ends)
    assert (summary["env_steps"], summary["stopped"]) == (32, "on_evaluation returned False")
    goes_on = callbacks_of(on_evaluation=lambda run: None, on_iteration=lambda run: 0)
    assert train(settings(), tmp_path / "b", console=False, callbacks=goes_on)[1]["env_steps"] == 64


def test_a_run_is_saved_before_a_callbacks_error_ends_it(tmp_path: Path) -> None:
    def fails(run: RunUnderWay) -> None:
        if run.env_steps == 32:
            raise ValueError("a mistake in it")

    with pytest.raises(ValueError, match="a mistake in it"):
        train(settings(checkpoint_every=0), tmp_path / "run", console=False, callbacks=callbacks_of(on_iteration=fails))
    assert kept(tmp_path / "run", "checkpoints") == [32]


def test_what_is_no_callback_is_named() -> None:
    with pytest.raises(ConfigError, match=r"callbacks: got 3; wanted an object with a method on_iteration, on_eval"):
        callbacks_of([3])
    with pytest.raises(ConfigError, match=r"on_evaluation: got 'print'; wanted a function of the run"):
        callbacks_of(on_evaluation="print")  # type: ignore[arg-type]
    assert callbacks_of() is None


def test_the_best_checkpoint_is_kept(tmp_path: Path, returns: Callable[..., None]) -> None:
    returns(1.0, 3.0, 2.0, 3.0)
    seen = {}

    def note(run: RunUnderWay) -> None:
        seen[run.env_steps] = {k: v.clone() for k, v in run.agent().agent.state_dict().items()}

    folder, summary = train(
        settings(keep_best=True, keep_checkpoints=1), tmp_path / "run", console=False,
        callbacks=callbacks_of(on_evaluation=note),
    )  # fmt: skip
    assert summary["best_env_steps"] == 32
    assert summary["best_return_mean"] == 3
    assert (kept(folder), kept(folder, "checkpoints")) == ([32], [64])
    assert same(weights(folder, "best"), seen[32])
    best, last = load_policy(folder, checkpoint="best"), load_policy(folder)
    assert (best.steps, last.steps) == (32, 64)
    assert same(best.agent.state_dict(), seen[32])
    assert check_run(folder).whole
    next((folder / "best").glob("*/weights.safetensors")).write_bytes(b"damaged")
    report = check_run(folder)
    assert any("best" in line and "weights.safetensors" in line for line in report.damages)
    with pytest.raises(CheckpointError, match=r"best.*weights.safetensors does not match its digest"):
        load_policy(folder, checkpoint="best")


def test_without_keep_best_there_is_none(tmp_path: Path) -> None:
    folder, _ = train(settings(), tmp_path / "run", console=False)
    assert not (folder / "best").exists()
    with pytest.raises(CheckpointError, match=r"there is no best checkpoint; wanted a run with keep_best"):
        load_policy(folder, checkpoint="best")
    with pytest.raises(CheckpointError, match=r"checkpoint: got 16; wanted one of 'latest', 'best', 48, 64"):
        load_policy(folder, checkpoint=16)
    assert load_policy(folder, checkpoint=48).steps == 48


@pytest.mark.parametrize("later", [3.0, 0.5])
def test_a_run_that_goes_on_from_before_its_best_has_the_best_of_that_time(
    later: float, tmp_path: Path, returns: Callable[..., None]
) -> None:
    """A kill after the best checkpoint at 32 and before the run's own: it goes on from 16, whose best is 16."""
    returns(1.0, 3.0)

    def killed(run: RunUnderWay) -> None:
        if run.env_steps == 32:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(settings(keep_best=True), folder, console=False, callbacks=callbacks_of(on_evaluation=killed))
    assert (kept(folder), kept(folder, "checkpoints")) == ([16, 32], [16])
    returns(later, 0.0)
    _, summary = resume(folder, console=False)
    wanted = 32 if later > 1 else 16
    assert summary["best_env_steps"] == wanted
    assert kept(folder) == [wanted]


def test_a_run_ends_at_a_return(tmp_path: Path, returns: Callable[..., None]) -> None:
    returns(1.0, 3.0, 2.0)
    folder, summary = train(settings(stop_at_return=2.5), tmp_path / "run", console=False)
    assert summary["env_steps"] == 32
    assert summary["stopped"] == "an evaluation's mean return is 3 (stop_at_return 2.5)"
    assert finished_summary(folder) == json.loads((folder / "summary.json").read_text())
    assert resume(folder, console=False)[1]["env_steps"] == 32  # it is over


def test_a_run_ends_without_improvement(
    tmp_path: Path, returns: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    returns(1.0, 0.5, 2.0, 2.0, 1.9)  # the third is better, an equal one is not
    folder, summary = train(
        settings(total_steps=128, stop_without_improvement=2), tmp_path / "run", console=False
    )  # fmt: skip
    assert summary["env_steps"] == 80
    assert summary["stopped"].startswith("2 evaluations in a row were no better than the best")
    assert finished_summary(folder) is not None
    assert main(["resume", str(folder)]) == 0
    assert "it ended early: 2 evaluations in a row" in capsys.readouterr().out


def test_stopping_needs_evaluations() -> None:
    with pytest.raises(ConfigError, match=r"eval_every: got 0 with stop_at_return; wanted a number above 0"):
        settings(eval_every=0, stop_at_return=-1.0)
