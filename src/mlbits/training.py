"""``mlbits.train`` and ``mlbits.resume``: training from Python, the same as by the command line.

By default further measurements, such as images of the policy, are recorded at every evaluation.

Example:
    folder, summary = mlbits.train("ppo", "mlbits/GridWorld-v0", total_steps=300_000, seed=1)
    folder, summary = mlbits.train("crr", data="my/dataset-v0", total_steps=20_000)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbits.evals.training_probes import during_training
from mlbits.selfplay import training
from mlbits.selfplay.runs.config import Settings, resolve
from mlbits.selfplay.session import Measure


def train(
    agent: str,
    env: str | None = None,
    *,
    out: str | Path | None = None,
    preset: str = "auto",
    agent_settings: Mapping[str, Any] | None = None,
    env_settings: Mapping[str, Any] | None = None,
    console: bool = True,
    measure: Measure | None = during_training,
    **run: Any,
) -> tuple[Path, dict[str, Any]]:
    """Train an agent on an environment, as ``mlbits train AGENT ENV`` does.

    Args:
        agent: a registered agent's name.
        env: an environment's id; an offline agent may leave it to its dataset (``data=``).
        out: the run's folder; None makes one under ``runs``.
        preset: "auto", "none", or the environment whose preset to use.
        agent_settings: settings of the agent (``--agent.NAME``), which override the preset's.
        env_settings: settings of the environment (``--env.NAME``).
        console: whether to show progress.
        measure: a function called at every evaluation for further measurements to record; None records only the
            returns.
        **run: settings of the run; see :class:`mlbits.selfplay.runs.config.RunConfig`.

    Returns:
        The folder and the summary.

    Raises:
        MlbitsError: for unknown names, invalid settings, unsupported spaces, or numbers that are not finite.
        RunInterrupted: a KeyboardInterrupt, after a signal or a closed pipe; the run is saved first.
    """
    settings = resolve(agent, env, preset=preset, run=run, agent_settings=agent_settings, env_settings=env_settings)
    return train_resolved(settings, out, console=console, measure=measure)


def train_resolved(
    settings: Settings,
    out: str | Path | None = None,
    *,
    console: bool = True,
    measure: Measure | None = during_training,
) -> tuple[Path, dict[str, Any]]:
    """Train with all settings given as one object; see :func:`mlbits.selfplay.training.train`."""
    return training.train(settings, out, console=console, measure=measure)


def resume(
    folder: str | Path,
    *,
    total_steps: int | None = None,
    data: str | None = None,
    console: bool = True,
    measure: Measure | None = during_training,
) -> tuple[Path, dict[str, Any]]:
    """Resume a run from its newest complete checkpoint, as ``mlbits resume RUN`` does.

    Args:
        folder: the run's folder.
        total_steps: a new number of steps to end at; None keeps the run's own.
        data: where the run's dataset is now, if it has been moved; another one is refused.
        console: whether to show progress.
        measure: as for :func:`train`.

    Returns:
        The folder and the summary.

    Raises:
        RunError: if the folder is not a run, or one that cannot be resumed.
        CheckpointError: if there are checkpoints and none is usable.
        RunInterrupted: as :func:`train` raises it.
    """
    return training.resume(folder, total_steps=total_steps, data=data, console=console, measure=measure)
