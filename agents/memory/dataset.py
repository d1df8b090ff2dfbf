"""A dataset of recorded episodes, laid end to end, for learning without an environment.

Each episode of T steps has T + 1 observations: the one before each step, and the last. They are stored once, in order,
so that the observation before step i of a dataset stands in row i + (number of its episode) and the one after it in
the next row. A loader that forgets the "+ episode" pairs observations with actions that are k steps away in episode k;
here rows are computed in one place, and tests compare them with a re-stepped environment.

Terminated and truncated steps differ as everywhere: after a truncation the last observation's value still counts. An
episode whose last step has neither flag was cut by its recorder and counts as truncated.

A dataset is checked when it is made (:mod:`~mlbits.agents.memory.dataset_checks`): one that exists holds whole episodes
of finite numbers, and actions within their space.

Example:
    >>> space = gym.spaces.Discrete(2)
    >>> one = Episode(obs=[0, 1, 0], action=[1, 0], reward=[0.0, 1.0], terminated=[False, True])
    >>> two = Episode(obs=[1, 1], action=[1], reward=[3.0], truncated=[True])
    >>> data = Dataset.from_episodes([one, two], space, space)
    >>> data.returns.tolist(), data.lengths.tolist()
    ([1.0, 3.0], [2, 1])
    >>> drawn = data.transitions(torch.tensor([1, 2]), discount=0.9)
    >>> drawn.obs.tolist(), drawn.next_obs.tolist(), [round(d, 3) for d in drawn.discount.tolist()]
    ([1, 1], [0, 1], [0.0, 0.9])
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import pick, placed
from mlbits.agents.memory.dataset_checks import FIELDS, check_dataset, checked_episode
from mlbits.agents.memory.dataset_spaces import DatasetError, SpaceConversion
from mlbits.agents.memory.replay import Transitions

__all__ = ["Dataset", "DatasetBuilder", "DatasetError", "Episode"]


class Episode(NamedTuple):
    """One episode of T steps; arrays, tensors or lists.

    Attributes:
        obs: [T + 1, ...] or a dict of those.
        action: [T, ...].
        reward: [T].
        terminated: bool [T]; None for never.
        truncated: bool [T]; None for never.
        log_prob: log probability (density) of each action under the policy that chose it, [T], or None.
        draw: what ``log_prob`` is the density of where that is not the action: the policy's draw before it was scaled
            and clipped, [T, ...]; or None.
        mask: the legal actions at each observation, bool [T + 1, A], or None.
        seed: with which the environment was reset, or -1 where it is not known.
    """

    obs: Any
    action: Any
    reward: Any
    terminated: Any = None
    truncated: Any = None
    log_prob: Any = None
    draw: Any = None
    mask: Any = None
    seed: int = -1


@dataclass(frozen=True, eq=False)
class Dataset:
    """E episodes of N steps in all.

    Attributes:
        obs: [N + E, ...] or a dict of those; each episode's T observations and its last one.
        action: [N, ...], int64 or float32.
        reward: float32 [N].
        terminated: bool [N].
        truncated: bool [N].
        starts: int64 [E + 1], numbers of the episodes' first steps, and N.
        observation_space: as agents see it: one level of keys, float32 in place of float64.
        action_space: of one step.
        log_prob: log probability (density) of each action under the policy that chose it, float32 [N], or None.
        draw: what ``log_prob`` is the density of where that is not the action: the policy's draw before it was scaled
            and clipped, float32 [N, ...]; or None.
        mask: the legal actions at each observation, bool [N + E, A], or None.
        seeds: with which the environment was reset for each episode, int64 [E]; -1 where it is not known.
        env: id of the environment, or None.
        settings: the environment's settings.
        name: for messages.

    Raises:
        DatasetError: if an array does not fit the others or the spaces, or holds a number that is not finite or an
            action that is not in its space; names the dataset, the episode and the field.
    """

    obs: Any
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    starts: Tensor
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    log_prob: Tensor | None = None
    draw: Tensor | None = None
    mask: Tensor | None = None
    seeds: Tensor | None = None
    env: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = "dataset"

    def __post_init__(self) -> None:
        if self.seeds is None:
            object.__setattr__(self, "seeds", torch.full((len(self.starts) - 1,), -1))
        check_dataset(self)

    @classmethod
    def from_episodes(
        cls,
        episodes: Sequence[Episode],
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        env: str | None = None,
        settings: Mapping[str, Any] | None = None,
        name: str = "dataset",
    ) -> Dataset:
        """A dataset of the given episodes.

        Raises:
            DatasetError: as for the class, and if an episode's fields have different lengths.
        """
        builder = DatasetBuilder(observation_space, action_space, env=env, settings=settings, name=name)
        for episode in episodes:
            builder.add(episode)
        return builder.dataset()

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.starts) - 1

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.reward)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.reward.device

    @functools.cached_property
    def lengths(self) -> Tensor:
        """Steps of each episode, int64 [E]."""
        return self.starts.diff()

    @functools.cached_property
    def episode_of_step(self) -> Tensor:
        """The episode of each step, int64 [N]."""
        return torch.arange(self.num_episodes, device=self.device).repeat_interleave(self.lengths)

    @functools.cached_property
    def returns(self) -> Tensor:
        """Sum of rewards of each episode, float32 [E] (summed in float64)."""
        total = torch.zeros(self.num_episodes, dtype=torch.float64, device=self.device)
        return total.index_add_(0, self.episode_of_step, self.reward.double()).float()

    def to(self, device: torch.device | str) -> Dataset:
        """This dataset with its tensors on a device; itself if they are there already."""
        return self if torch.device(device) == self.device else self._mapped(lambda value: placed(value, device))

    def transitions(self, index: Tensor, discount: float = 0.99) -> Transitions:
        """The steps ``index``, int64 [n], as transitions of one step; their ``slot`` is ``index``.

        ``discount`` of a transition is 0 where its episode terminated, else gamma, also where it was truncated.
        """
        before = index + self.episode_of_step.index_select(0, index)
        after = before + 1
        mask = self.mask
        return Transitions(
            obs=pick(self.obs, before),
            action=self.action.index_select(0, index),
            reward=self.reward.index_select(0, index),
            discount=torch.where(self.terminated.index_select(0, index), 0.0, discount),
            next_obs=pick(self.obs, after),
            next_mask=None if mask is None else mask.index_select(0, after),
            mask=None if mask is None else mask.index_select(0, before),
            weight=None,
            slot=index,
        )

    def sample(self, batch_size: int, generator: torch.Generator, *, discount: float = 0.99) -> Transitions:
        """Sample steps uniformly, with replacement, as transitions.

        Args:
            batch_size: how many.
            generator: for the draws.
            discount: gamma.
        """
        index = torch.randint(self.num_steps, (batch_size,), generator=generator, device=generator.device)
        return self.transitions(index.to(self.device), discount)

    def episode(self, number: int) -> Episode:
        """Episode ``number``: views of its rows."""
        if not 0 <= number < self.num_episodes:
            raise DatasetError(f"{self.name}: episode: got {number}; wanted 0 to {self.num_episodes - 1}")
        first, last = self.starts[number : number + 2].tolist()
        steps, seen = slice(first, last), slice(first + number, last + number + 1)
        assert self.seeds is not None
        return Episode(
            obs=pick(self.obs, seen),
            action=self.action[steps],
            reward=self.reward[steps],
            terminated=self.terminated[steps],
            truncated=self.truncated[steps],
            log_prob=None if self.log_prob is None else self.log_prob[steps],
            draw=None if self.draw is None else self.draw[steps],
            mask=None if self.mask is None else self.mask[seen],
            seed=int(self.seeds[number]),
        )

    def __iter__(self) -> Iterator[Episode]:
        """The episodes in order."""
        return (self.episode(number) for number in range(self.num_episodes))

    def episodes(self, index: Tensor | Sequence[int]) -> Dataset:
        """The dataset of the episodes ``index`` [n], in that order; an episode may come more than once."""
        chosen = torch.as_tensor(index, dtype=torch.int64, device=self.device).flatten()
        if len(chosen) == 0 or int(chosen.min()) < 0 or int(chosen.max()) >= self.num_episodes:
            wanted = f"numbers of episodes from 0 to {self.num_episodes - 1}, at least one"
            raise DatasetError(f"{self.name}: episodes: got {chosen.tolist()[:8]}; wanted {wanted}")
        lengths = self.lengths[chosen]
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        # Row r of the new arrays comes from row r + shift of the old ones, by episode.
        step = torch.arange(int(starts[-1]), device=self.device)
        step += (self.starts[chosen] - starts[:-1]).repeat_interleave(lengths)
        number = torch.arange(len(chosen), device=self.device)
        seen = torch.arange(int(starts[-1]) + len(chosen), device=self.device)
        seen += (self.starts[chosen] + chosen - starts[:-1] - number).repeat_interleave(lengths + 1)
        assert self.seeds is not None
        return replace(
            self,
            obs=pick(self.obs, seen),
            mask=None if self.mask is None else self.mask[seen],
            action=self.action[step],
            reward=self.reward[step],
            terminated=self.terminated[step],
            truncated=self.truncated[step],
            log_prob=None if self.log_prob is None else self.log_prob[step],
            draw=None if self.draw is None else self.draw[step],
            starts=starts,
            seeds=self.seeds[chosen],
        )

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Two datasets: a random ``fraction`` of the episodes, and the others, each in their present order.

        Raises:
            DatasetError: if one of them would be empty.
        """
        count = round(_fraction(self, fraction) * self.num_episodes)
        if not 0 < count < self.num_episodes:
            got = f"{fraction} of {self.num_episodes} episodes, which is {count}"
            raise DatasetError(f"{self.name}: fraction: got {got}; wanted at least one episode on each side")
        order = torch.randperm(self.num_episodes, generator=torch.Generator().manual_seed(seed))
        return self.episodes(order[:count].sort().values), self.episodes(order[count:].sort().values)

    def best(self, fraction: float) -> Dataset:
        """The ``fraction`` of episodes with the highest returns, at least one, in their present order."""
        count = max(1, round(_fraction(self, fraction) * self.num_episodes))
        order = self.returns.sort(descending=True, stable=True).indices
        return self.episodes(order[:count].sort().values)

    @staticmethod
    def mix(datasets: Sequence[Dataset], fractions: Sequence[float] | None = None, *, seed: int = 0) -> Dataset:
        """The episodes of several datasets of one environment in random order.

        Args:
            datasets: at least one, with the same spaces. Log probabilities and masks are kept if all have them.
            fractions: of each dataset's episodes, drawn at random, at least one; None takes all.
            seed: of the draws and of the order.

        Raises:
            DatasetError: if spaces or environments differ.
        """
        if not datasets:
            raise DatasetError("datasets: got none; wanted at least one")
        parts = list(fractions) if fractions is not None else [1.0] * len(datasets)
        if len(parts) != len(datasets):
            raise DatasetError(f"fractions: got {len(parts)}; wanted one for each of {len(datasets)} datasets")
        generator = torch.Generator().manual_seed(seed)
        chosen = []
        for data, part in zip(datasets, parts, strict=True):
            count = max(1, round(_fraction(data, part) * data.num_episodes))
            chosen.append(data.episodes(torch.randperm(data.num_episodes, generator=generator)[:count].sort().values))
        joined = _joined(chosen)
        return joined.episodes(torch.randperm(joined.num_episodes, generator=generator))

    def _mapped(self, change: Callable[[Any], Any]) -> Dataset:
        names = ("obs", "action", "reward", "terminated", "truncated", "starts", "log_prob", "draw", "mask", "seeds")
        values = {name: getattr(self, name) for name in names}
        changed = {name: change(value) for name, value in values.items() if value is not None}
        return replace(self, **changed)


class DatasetBuilder:
    """Build a dataset from episodes that are added one by one; each is checked and converted when it is added.

    Args:
        observation_space: Discrete, Box, MultiDiscrete, MultiBinary, a Dict of those, or what Gymnasium can flatten.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        env: id of the environment, or None.
        settings: the environment's settings.
        name: of the dataset, for messages.
        steps: for how many steps to allocate memory at first.

    Raises:
        DatasetError: if a space is not one that agents support.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        env: str | None = None,
        settings: Mapping[str, Any] | None = None,
        name: str = "dataset",
        steps: int = 1024,
    ) -> None:
        self.name, self.env, self.settings = name, env, dict(settings or {})
        self.layouts = SpaceConversion(observation_space, action_space, name)
        self._starts, self._seeds, self._room = [0], list[int](), steps
        self._arrays: dict[Any, np.ndarray] = {}

    def add(self, episode: Episode) -> None:
        """Add an episode; nothing refers to its arrays afterwards.

        Raises:
            DatasetError: if its fields do not fit each other or the spaces, or it lacks a field that others have.
        """
        number = len(self._seeds)
        fields = checked_episode(episode._asdict(), self.layouts, number)
        start, steps = self._starts[-1], len(fields["reward"])
        self._seeds.append(fields.pop("seed"))
        self._starts.append(start + steps)
        parts = {("obs", key): part for key, part in fields.pop("obs").items()}
        parts |= {(name, None): part for name, part in fields.items() if part is not None}
        for name, _ in self._arrays.keys() ^ parts.keys() if number else ():
            here, there = ("missing", "have") if (name, None) not in parts else ("present", "lack")
            raise DatasetError(f"{self.name}: episode {number}: {name}: {here}; the episodes before it {there} it")
        for (name, key), part in parts.items():
            first = start + number * FIELDS[name]
            self._rows(name, key, part, first + len(part))[first : first + len(part)] = part

    def _rows(self, name: str, key: str | None, part: np.ndarray, wanted: int) -> np.ndarray:
        """The array of a field, with at least ``wanted`` rows."""
        array = self._arrays.get((name, key))
        if array is None or len(array) < wanted:
            new = np.empty(
                (max(wanted, 2 * len(array) if array is not None else self._room), *part.shape[1:]), part.dtype
            )
            if array is not None:
                new[: len(array)] = array
            array = self._arrays[name, key] = new
        return array

    def dataset(self) -> Dataset:
        """The dataset of the episodes added; the builder is then empty.

        Raises:
            DatasetError: if there are none, or for a number that must not be.
        """
        count, steps = len(self._seeds), self._starts[-1]
        if count == 0:
            raise DatasetError(f"{self.name}: got no episodes; wanted at least one")
        found: dict[str, Any] = {}
        for (name, key), array in self._arrays.items():
            rows = torch.from_numpy(array[: steps + count * FIELDS[name]])
            if key is None:
                found[name] = rows
            else:
                found.setdefault(name, {})[key] = rows
        self._arrays = {}
        return Dataset(
            **found,
            starts=torch.tensor(self._starts),
            seeds=torch.tensor(self._seeds),
            observation_space=self.layouts.observation_space,
            action_space=self.layouts.action_space,
            env=self.env,
            settings=self.settings,
            name=self.name,
        )


def _fraction(data: Dataset, fraction: float) -> float:
    if not (math.isfinite(fraction) and 0 < fraction <= 1):
        raise DatasetError(f"{data.name}: fraction: got {fraction}; wanted more than 0 and at most 1")
    return fraction


def _joined(datasets: Sequence[Dataset]) -> Dataset:
    """The episodes of all datasets in order."""
    first, *others = datasets
    for data in others:
        for what in ("env", "settings", "observation_space", "action_space"):
            one, other = getattr(first, what), getattr(data, what)
            if one != other:
                raise DatasetError(f"{data.name}: {what}: got {other}; wanted that of {first.name}: {one}")
    ends = torch.tensor([0] + [data.num_steps for data in datasets]).cumsum(0)

    def cat(name: str) -> Any:
        values = [getattr(data, name) for data in datasets]
        if any(value is None for value in values):
            return None
        if isinstance(values[0], dict):
            return {key: torch.cat([value[key] for value in values]) for key in values[0]}
        return torch.cat(values)

    fields = ("obs", "action", "reward", "terminated", "truncated", "log_prob", "draw", "mask", "seeds")
    starts = [data.starts[:-1] + end for data, end in zip(datasets, ends.tolist(), strict=False)]
    name = " + ".join(dict.fromkeys(data.name for data in datasets))
    return replace(first, **{part: cat(part) for part in fields}, starts=torch.cat([*starts, ends[-1:]]), name=name)
