"""A session on a dataset, which takes the place of the copies and of the collector in the loop.

``collect`` hands the whole dataset to the learner, and steps are gradient steps: those of the run, of its records and
of its checkpoints. Nothing is played unless ``eval_online`` asks for it; every evaluation is then noted, as a policy
that was tried online (:mod:`~mlbits.selfplay.offline.tried_online`).

Example:
    mlbits train crr Pendulum-v1 --data my/dataset-v0 --total-steps 20k
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import DatasetSpec
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.registry import agent_entry
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.selfplay.collector import Episodes, Timing
from mlbits.selfplay.lineup import Lineup, self_play
from mlbits.selfplay.offline import tried_online
from mlbits.selfplay.offline.data import check_environment, check_same, lasting_name, read_data
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.session import FOREIGN, Counters, Session
from mlbits.selfplay.session.opening import LEARNING


class Reader:
    """Stands where other sessions have their collector, and hands out the dataset.

    Args:
        data: the dataset.
        updates: gradient steps that the learner makes each time.

    Attributes:
        timing: wall seconds spent in each part.
        check: of a collector; a dataset is checked when it is read.
    """

    def __init__(self, data: Dataset, updates: int) -> None:
        self.data, self.updates = data, updates
        self.timing = Timing()
        self.check: Any = None

    def collect(self, lineup: Lineup, reseat: Any = None) -> tuple[Dataset, Episodes, int]:
        """The dataset, no episodes, and the number of gradient steps that follow."""
        return self.data, Episodes(np.zeros(0), np.zeros(0, np.int64)), self.updates


class OfflineSession(Session):
    """A session whose learner has a dataset; its batch is a single copy, used for its spaces and never played."""

    @property
    def reader(self) -> Reader:
        """The dataset, in the collector's place."""
        reader: Any = self.collector
        return reader

    def start(self) -> None:
        """Nothing is begun."""

    def steps_of(self, rollout: Any) -> int:
        """Gradient steps."""
        return self.reader.updates

    @property
    def plays_evaluations(self) -> bool:
        """Only if asked for."""
        return self.settings.run.eval_online

    @property
    def threshold(self) -> float | None:
        """None: solved is what is shown by playing."""
        return None

    def evaluated(self, folder: Path) -> None:
        """Note that another policy was tried online."""
        assert self.counters.evaluation is not None
        tried_online.note(folder, "training", self.counters.evaluation)

    def about(self, folder: Path) -> dict[str, Any]:
        """Gradient steps, the dataset, and how many policies were tried online."""
        data = self.reader.data
        sizes = {"name": data.name, "episodes": data.num_episodes, "steps": data.num_steps}
        found = {"gradient_steps": self.counters.env_steps, "data": sizes}
        return found | tried_online.counted(folder)

    def belongs_to(self) -> dict[str, Any]:
        """Facts that have to be the same in a checkpoint, among them the dataset's hash."""
        facts = super().belongs_to()
        facts.pop("state_dtype", None)  # of the copies, which an offline run does not play
        return facts | {"data_hash": self.settings.run.data_hash}

    def to_checkpoint(self) -> Checkpoint:
        """Everything needed to continue the run."""
        return Checkpoint(self.learner.state_dict(), {"learning": self.learning.get_state()}, self.counters.plain())

    def from_checkpoint(
        self, checkpoint: Checkpoint, folder: Path, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Restore a checkpoint of this run.

        Raises:
            CheckpointError: if it lacks what this version of mlbits needs.
        """
        try:
            arrays: Mapping[str, Tensor] = checkpoint.arrays
            self.learner.load_state_dict(checkpoint.weights)
            self.learning.set_state(arrays["learning"])
            self.counters = Counters(**checkpoint.state)
            self.counters.check()
        except FOREIGN as error:
            raise CheckpointError(f"foreign: the checkpoint lacks what this run needs ({error})") from None


def open_offline(settings: Settings) -> OfflineSession:
    """Read the dataset and build the agent; the returned session's settings hold the dataset's hash.

    Raises:
        MlbitsError: naming the setting, the space, or the episode and field of the dataset that does not fit.
    """
    run = settings.run
    entry = agent_entry(settings.agent)
    if not entry.offline:
        raise ConfigError(f"data: got {run.data}; {settings.agent} learns by playing: wanted an offline agent, as crr")
    others = {"opponents": run.opponents, "pool": run.pool != "none", "stop_when_solved": run.stop_when_solved}
    for name in (name for name, given in others.items() if given):
        raise ConfigError(f"{name}: got {getattr(run, name)!r}; wanted none where an agent learns from a dataset")
    for name in ("keep_best", "stop_at_return", "stop_without_improvement"):
        if getattr(run, name) and not run.eval_online:
            raise ConfigError(
                f"{name}: got {getattr(run, name)!r} without eval_online; wanted that, as it needs evaluations"
            )
    device = parse_device(run.device)
    device = check_cuda(device) if device.type == "cuda" else device
    data = read_data(run.data)
    found = check_same(run.data, data, run.data_hash)
    settings = dataclasses.replace(
        settings, run=dataclasses.replace(run, data=lasting_name(run.data), data_hash=found)
    )  # fmt: skip
    batch = open_batch(settings.env, 1, settings=settings.env_settings, illegal="replace", start=False)
    check_environment(data, settings.env, batch)
    spaces = batch.observation_space, batch.action_space
    learner: Any = entry.make(settings.agent_config, *spaces, seed=run.seed, device=device)
    spec = learner.experience
    assert isinstance(spec, DatasetSpec), f"{settings.agent} is offline and asks for no dataset"
    reader: Any = Reader(data.to(device), spec.updates_per_iteration)
    return OfflineSession(
        settings=settings,
        device=device,
        batch=batch,
        learner=learner,
        lineup=self_play(learner, 1, 1, device),
        collector=reader,
        learning=torch.Generator(device).manual_seed(run.seed + LEARNING),
        recent=deque(maxlen=run.solved_episodes),
    )
