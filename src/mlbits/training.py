"""Training from Python and by the command, which are the same: measured as it goes, pictures of policies among it.

``mlbits.train`` and ``mlbits.resume`` are these functions.

Example:
    folder, summary = mlbits.train("ppo", "mlbits/GridWorld-v0", total_steps=300_000, seed=1)
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
    env: str,
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
        env: an environment's id.
        out: the run's folder; None makes one under ``runs``.
        preset: "auto", "none", or the environment whose preset to use.
        agent_settings: of the agent, over those of the preset (``--agent.NAME``).
        env_settings: of the environment (``--env.NAME``).
        console: whether to show progress.
        measure: asked at every evaluation for more to record; None records the returns alone.
        **run: settings of the run, see :class:`mlbits.selfplay.runs.config.RunConfig`.

    Returns:
        The folder and the summary.

    Raises:
        MlbitsError: for names, settings and spaces that do not fit, or numbers that are not finite.
        RunInterrupted: a KeyboardInterrupt, when a signal or a closed pipe asks for the run's end; it is saved before.
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
    """The same with all settings in one; see :func:`mlbits.selfplay.training.train`."""
    return training.train(settings, out, console=console, measure=measure)


def resume(
    folder: str | Path,
    *,
    total_steps: int | None = None,
    console: bool = True,
    measure: Measure | None = during_training,
) -> tuple[Path, dict[str, Any]]:
    """Continue a run, as ``mlbits resume RUN`` does; see :func:`mlbits.selfplay.training.resume`."""
    return training.resume(folder, total_steps=total_steps, console=console, measure=measure)
