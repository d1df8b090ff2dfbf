"""The replayed experience of a DiscoRL agent: windows of T steps, the newest first in, the oldest first out.

A window holds T steps of one copy and the observation after the last. Copies are reset in the step that ends an
episode (same-step autoreset), so that its next row is the first observation of the next episode, and every row is a
step that was really played. Nothing has to be masked: an episode that terminated has no next value, and one cut by a
limit leads to its own last observation, which is kept beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, Rollout


class WindowBatch(NamedTuple):
    """B windows of T steps, whose observations are in rows: T B of the steps, B after the last, and of cut episodes.

    Attributes:
        obs: [R, ...], or a dict of such tensors.
        following: the row that each step led to, int64 [T, B].
        action: int64 [T, B].
        reward: [T, B].
        terminated: bool [T, B].
        truncated: bool [T, B].
        behaviour: logits of the policy that played, [T, B, A].
    """

    obs: Any
    following: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    behaviour: Tensor


class Windows:
    """The newest windows of all copies and seats.

    Args:
        capacity: number of windows kept.

    Attributes:
        count: number of windows in it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count, self._next = capacity, 0, 0
        self._parts: dict[str, Tensor] = {}

    def add(self, rollout: Rollout) -> int:
        """Add the windows of a rollout; returns their number.

        There is one for each copy and seat; those in which a step is not the learner's are left out.

        Raises:
            AgentError: if its notes lack the behaviour's logits.
        """
        if rollout.notes is None:
            raise AgentError("disco: got a rollout without notes; wanted the behaviour's logits")
        seats = rollout.reward.shape[2]
        ends = {name: getattr(rollout, name)[..., None].expand(-1, -1, seats) for name in ("terminated", "truncated")}
        obs = _joined(lambda a, b: torch.cat([a, b[None]]), rollout.obs, rollout.last_obs)
        # Where no episode was cut they are whatever was there before: zeros, so that equal runs have equal states.
        cut = ends["truncated"] & ~ends["terminated"]
        final = _joined(
            lambda a, _: a * cut.view(*cut.shape, *[1] * (a.dim() - 3)), rollout.final_obs, rollout.final_obs
        )
        parts = {
            **_named("obs", obs), **_named("final_obs", final), "action": rollout.sample,
            "reward": rollout.reward, "behaviour": rollout.notes["behaviour"], **ends,
        }  # fmt: skip
        flat = {name: part.flatten(1, 2).transpose(0, 1) for name, part in parts.items()}  # [windows, T, ...]
        if rollout.active is not None:
            own = rollout.active.all(0).flatten()
            flat = {name: part[own] for name, part in flat.items()}
        fresh = len(flat["action"])
        for name, part in flat.items():
            if name not in self._parts:
                self._parts[name] = part.new_zeros(self.capacity, *part.shape[1:])
            kept = part[-self.capacity :]
            self._parts[name][(self._next + torch.arange(len(kept), device=part.device)) % self.capacity] = kept
        kept = min(fresh, self.capacity)
        self._next, self.count = (self._next + kept) % self.capacity, min(self.count + kept, self.capacity)
        return fresh

    def sample(self, size: int, generator: torch.Generator) -> WindowBatch:
        """Windows drawn uniformly, with replacement; the generator is on the CPU."""
        return self.batch(torch.randint(self.count, (size,), generator=generator))

    def batch(self, index: Tensor) -> WindowBatch:
        """The windows ``index`` [B], counted from the oldest place in memory."""
        device = self._parts["action"].device
        parts = {name: part[index.to(device)].transpose(0, 1) for name, part in self._parts.items()}  # [T, B, ...]
        steps, copies = parts["action"].shape
        following = torch.arange(copies, (steps + 1) * copies, device=device).view(steps, copies)
        cut = parts["truncated"] & ~parts["terminated"]
        following[cut] = (steps + 1) * copies + torch.arange(int(cut.sum()), device=device)
        obs = _joined(lambda a, b: torch.cat([a.flatten(0, 1), b[cut]]), _tree("obs", parts), _tree("final_obs", parts))
        names = ("action", "reward", "terminated", "truncated", "behaviour")
        return WindowBatch(obs, following, *(parts[name] for name in names))

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the windows and of where the next goes."""
        place = torch.tensor([self.count, self._next])
        return {"place": place} | {f"part.{name}": part.clone() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device | str) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if it is of another capacity, or its parts do not fit one another.
        """
        count, following = (int(number) for number in state["place"].tolist())
        parts = {name.partition(".")[2]: part.to(device).clone() for name, part in state.items() if name != "place"}
        if sizes := {len(part) for part in parts.values()} - {self.capacity}:
            raise AgentError(f"windows: got {next(iter(sizes))} places; wanted {self.capacity}")
        if not 0 <= count <= self.capacity or not 0 <= following < self.capacity or (count and not parts):
            raise AgentError(f"windows: got count {count} and place {following}; wanted 0 to {self.capacity}")
        self.count, self._next, self._parts = count, following, parts


def _named(name: str, value: Any) -> dict[str, Tensor]:
    """A tensor, or each tensor of a dict, under a name."""
    return {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}


def _tree(name: str, parts: Mapping[str, Tensor]) -> Any:
    """What :func:`_named` was given."""
    if name in parts:
        return parts[name]
    return {key.partition(".")[2]: part for key, part in parts.items() if key.startswith(f"{name}.")}


def _joined(join: Callable[[Tensor, Tensor], Tensor], one: Any, two: Any) -> Any:
    """``join`` of two tensors, or of each pair of two dicts of tensors."""
    return {key: join(one[key], two[key]) for key in one} if isinstance(one, dict) else join(one, two)
