"""A session of meta-training: lifetimes take the place of the copies, and a rule that of the agent.

An iteration is a window of updates of all lifetimes and one step of the rule. Steps are environment steps of all
lifetimes. An evaluation is a whole lifetime of new agents by the rule as it is
(:mod:`~mlbits.selfplay.meta.evaluation`).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlbits.agents.agent import DivergedError, prefixed, unprefixed
from mlbits.agents.learned_rules.card import card
from mlbits.agents.learned_rules.config import MetaLPGConfig
from mlbits.agents.learned_rules.files import load_rule, save_rule
from mlbits.agents.learned_rules.learner import MetaLPG, lifetimes_of
from mlbits.agents.learned_rules.lifetimes import Lifetimes
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.envs.levels.worlds import make_worlds, read_mixture
from mlbits.selfplay.collector import Episodes, Timing
from mlbits.selfplay.finite import NotFiniteError, check_metrics
from mlbits.selfplay.meta.evaluation import Evaluator
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError, write_file
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.session import FOREIGN, Counters, Session
from mlbits.version import __version__

if TYPE_CHECKING:
    from mlbits.selfplay.curves.tracking import Tracker

ENV = "mlbits/CollectObjects-v0"  # the game of the levels; chains have another
RULE = "rule.safetensors"
_UNUSED = {"data": "", "opponents": (), "pool": "none", "stop_when_solved": False}


class _Lifetimes:
    """Stands where other sessions have their collector."""

    def __init__(self) -> None:
        self.timing = Timing()
        self.check: Any = None


@dataclasses.dataclass
class MetaSession(Session):
    """A run of meta-training.

    Attributes:
        groups: the lifetimes, a group for each kind of levels.
        evaluator: measures the rule.
    """

    groups: list[Lifetimes] = dataclasses.field(default_factory=list)
    evaluator: Any = None

    @property
    def rule_learner(self) -> MetaLPG:
        """The rule and its optimiser, in the learner's place."""
        learner: Any = self.learner
        return learner

    def start(self) -> None:
        """Nothing is begun: the levels have been, when they were made."""

    def collect(self) -> tuple[Any, Episodes, int]:
        """Nothing yet: agents play within a window. Its steps are known before it begins."""
        config = self.settings.agent_config
        steps = self.settings.run.num_envs * config.num_steps * (config.inner_updates + 1)
        return steps, Episodes(np.zeros(0), np.zeros(0, np.int64)), steps

    def steps_of(self, rollout: Any) -> int:
        """Environment steps of a window."""
        return int(rollout)

    def learn(self, rollout: Any) -> Mapping[str, Any]:
        """One window and one step of the rule; returns its metrics.

        Raises:
            NotFiniteError: if the objective or its gradient is not finite.
        """
        env, steps = self.settings.env, self.counters.env_steps + self.steps_of(rollout)
        try:
            metrics = self.rule_learner.learn(self.groups, min(self.progress, 1.0))
        except DivergedError as error:
            raise NotFiniteError.of_learning(env, error, steps) from None
        check_metrics(metrics, env, steps)
        return metrics

    @property
    def threshold(self) -> float | None:
        """None: a rule solves nothing."""
        return None

    def evaluates_itself(self, tracker: Tracker) -> bool:
        """Measure the rule, and record how it does beside A2C and random play; True."""
        arms = [group.bandit.best() for group in self.groups]
        scalars, evaluation = self.evaluator.measure(self.rule_learner.rule, arms)
        counters = self.counters
        tracker.record(counters.env_steps, scalars)
        best = counters.best_return_mean
        better = best is None or evaluation["return_mean"] > best
        counters.best_return_mean = evaluation["return_mean"] if better else best
        counters.evaluations_without_improvement = 0 if better else counters.evaluations_without_improvement + 1
        counters.evaluation = {"env_steps": counters.env_steps, **evaluation}
        return True

    def about(self, folder: Path) -> dict[str, Any]:
        """Where the rule is."""
        self.export(folder / RULE)
        ended, collapsed = sum(group.ended for group in self.groups).tolist()  # type: ignore[union-attr]
        return {"rule": str(folder / RULE), "lifetimes_ended": ended, "lifetimes_collapsed": collapsed}

    def export(self, path: Path) -> None:
        """Write the rule as a file that says what it was trained on and how it does, and its card beside it."""
        settings, config, counters = self.settings, self.settings.agent_config, self.counters
        tables = next((group for group in self.groups if group.levels.num_states is not None), self.groups[0])
        liked = tables.bandit.best()
        of_arms = tables.bandit.learning_rate, tables.bandit.alpha
        rate, alpha = (float(f"{float(values[liked]):.6g}") for values in of_arms)  # 0.1, not float32's nearest
        levels = {
            "levels": config.levels, "split": "train", "numbers": [0, config.num_levels or 2**32],
            "lifetimes_ended": sum(int(group.ended[0]) for group in self.groups),
        }  # fmt: skip
        plain = settings.to_json()
        about = {
            "trained_with": f"mlbits {__version__}", "seed": settings.run.seed, "env_steps": counters.env_steps,
            "cpu_seconds": round(counters.cpu_seconds, 1), "levels": levels, "settings": plain["agent_config"],
            "num_envs": settings.run.num_envs, "evaluation": counters.evaluation,
        }  # fmt: skip
        save_rule(path, self.rule_learner.rule, learning_rate=rate, alpha=alpha, about=about)
        write_file(path.with_suffix(".md"), card(path.stem, load_rule(path)).encode())

    def to_checkpoint(self) -> Checkpoint:
        """Everything needed to continue the run."""
        arrays: dict[str, torch.Tensor] = {}
        for number, group in enumerate(self.groups):
            arrays |= prefixed(str(number), group.state_dict())
        return Checkpoint(self.learner.state_dict(), arrays, self.counters.plain())

    def from_checkpoint(
        self, checkpoint: Checkpoint, folder: Path, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Restore a checkpoint of this run.

        Raises:
            CheckpointError: if it lacks what this version of mlbits needs.
        """
        try:
            self.learner.load_state_dict(checkpoint.weights)
            for number, group in enumerate(self.groups):
                group.load_state_dict(unprefixed(str(number), checkpoint.arrays))
            self.counters = Counters(**checkpoint.state)
            self.counters.check()
            self.check_weights()
        except FOREIGN as error:
            raise CheckpointError(f"foreign: the checkpoint lacks what this run needs ({error})") from None


def open_meta_session(settings: Settings, *, start: bool = True) -> MetaSession:
    """Build everything that a run of meta-training needs.

    Args:
        settings: of the run.
        start: not used; levels begin when they are made.

    Raises:
        MlbitsError: naming the setting, level or device that does not fit.
    """
    run, config = settings.run, settings.agent_config
    assert isinstance(config, MetaLPGConfig)
    if settings.env != ENV or settings.env_settings:
        raise ConfigError(f"env: got {settings.env}; wanted mlbits meta-train lpg, which takes --levels")
    for name, usual in _UNUSED.items():
        if getattr(run, name) != usual:
            raise ConfigError(f"{name}: got {getattr(run, name)!r}; wanted none where a rule is trained")
    kinds = read_mixture(config.levels)
    if run.num_envs % config.copies or run.num_envs // config.copies < len(kinds):
        raise ConfigError(
            f"num_envs and copies: got {run.num_envs} and {config.copies}; wanted a multiple of copies, with at least "
            f"one lifetime for each of {len(kinds)} kinds of levels"
        )
    device = parse_device(run.device)
    device = check_cuda(device) if device.type == "cuda" else device
    worlds = make_worlds(
        config.levels, run.num_envs // config.copies, config.copies, run.seed, device=device, **config.level_settings()
    )
    learner: Any = MetaLPG(config, seed=run.seed, device=device)
    reader: Any = _Lifetimes()
    nothing: Any = None
    return MetaSession(
        settings=settings,
        device=device,
        batch=worlds[0].batch,
        learner=learner,
        lineup=nothing,
        collector=reader,
        learning=torch.Generator(),
        recent=deque(maxlen=1),
        groups=lifetimes_of(config, worlds, run.seed),
        evaluator=Evaluator(config, list(kinds), run.eval_episodes, device),
    )
