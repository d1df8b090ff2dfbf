"""A replay buffer of latents, whose goals are chosen anew whenever a step is sampled.

As :class:`~mlbits.agents.memory.replay.Replay` for an agent that sees pictures through an encoder and sets its own
goals: each picture is encoded once, when it arrives, and a step is kept as a few numbers. A sampled step keeps the
goal that it was played for, or gets a latent that its episode reached later on ("future" of Andrychowicz et al. 2017,
"Hindsight experience replay"), or a new goal. Its reward is that of the goal it gets, and never what the environment
paid:

    r = -||e_I(s') - g||,   or with ``reach`` > 0:  r = -1 until ||e_I(s') - g|| < reach

where e_I are the latents that goals are made of. An episode does not end at a goal, so that relabelling changes no
end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.memory.replay import Transitions

NewGoals = Callable[[int, torch.Generator], Tensor]


class GoalMemory:
    """A circular buffer of the latest steps.

    Args:
        capacity: number of steps kept, over all copies.
        latents: Z, numbers that a picture is encoded as.
        actions: k, dimensions of an action.
        goal: which latents goals are made of, int64 [G].
        future: share of sampled steps whose goal is a later latent of their episode.
        fresh: share of those whose goal is new; the others keep theirs.
        reach: distance within which the reward is 0 and not -1; 0 for minus the distance.
        new_goals: draws n goals [n, G].
        device: where everything is kept.

    Attributes:
        added: steps ever added.
        latest: None; there is nothing to normalise.
    """

    def __init__(
        self, capacity: int, latents: int, actions: int, goal: Tensor, *, future: float, fresh: float, reach: float,
        new_goals: NewGoals, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.capacity, self.goal, self.new_goals = capacity, goal, new_goals
        self.future, self.fresh, self.reach = future, fresh, reach
        self.added, self.latest = 0, None
        shapes = {"z": latents, "next_z": latents, "action": actions, "goal": len(goal)}
        self._rows = {name: torch.zeros(capacity, size, device=device) for name, size in shapes.items()}
        self._rows["alive"] = torch.zeros(capacity, device=device)
        # Step t of copy b is in row (t mod T) B + b. Each row has its episode's number in its copy, and each episode,
        # in row (number mod T) B + b, the last of its steps so far.
        self._episode, self._last = (torch.zeros(capacity, dtype=torch.int64, device=device) for _ in range(2))
        self._number = torch.zeros(0, dtype=torch.int64, device=device)  # of each copy's episode, [B]

    @property
    def copies(self) -> int:
        """B, 0 before anything is added."""
        return len(self._number)

    def add(self, z: Tensor, next_z: Tensor, action: Tensor, goal: Tensor, terminated: Tensor, ended: Tensor) -> None:
        """Add T steps of B copies.

        Args:
            z: latents before each step, [T, B, Z].
            next_z: latents after it, of the episode's last observation where it ended, [T, B, Z].
            action: [T, B, k].
            goal: the goals they were played for, [T, B, G].
            terminated: bool [T, B].
            ended: whether the episode ended with the step, for any reason, bool [T, B].

        Raises:
            AgentError: if the buffer cannot hold two rounds of steps.
        """
        steps, copies = ended.shape
        if not self.copies:
            self._number = torch.zeros(copies, dtype=torch.int64, device=z.device)
        kept = self.capacity // copies
        if kept < 2 * steps:
            wanted = 2 * steps * copies
            raise AgentError(f"buffer_size: got {self.capacity:,}; wanted at least {wanted:,}, two rounds of steps")
        copy = torch.arange(copies, device=z.device)
        parts = {"z": z, "next_z": next_z, "action": action, "goal": goal, "alive": (~terminated).float()}
        for t in range(steps):
            number = self.added // copies
            row = number % kept * copies + copy
            for name, part in parts.items():
                self._rows[name][row] = part[t]
            self._episode[row] = self._number
            self._last[self._number % kept * copies + copy] = number
            self._number = self._number + ended[t]
            self.added += copies

    def sample(
        self, count: int, generator: torch.Generator, *, n_step: int = 1, discount: float = 0.99, **_: Any
    ) -> Transitions:
        """Draw steps, with their goals: ``obs`` and ``next_obs`` are latents with the goal behind them, [N, Z + G].

        Args:
            count: N.
            generator: source of the draws.
            n_step: must be 1.
            discount: gamma.
        """
        assert n_step == 1, "rewards of several steps for a relabelled goal are not built"
        device = self._episode.device
        row, goal = self.draw_goals(count, generator)
        next_z = self._rows["next_z"][row]
        far = (next_z[:, self.goal] - goal).norm(dim=1)
        reward = -far if self.reach == 0 else -(far >= self.reach).float()
        obs, next_obs = (torch.cat([z, goal], 1) for z in (self._rows["z"][row], next_z))
        alive = discount * self._rows["alive"][row]
        return Transitions(obs, self._rows["action"][row], reward, alive, next_obs, None, None, None, row.to(device))

    def draw_goals(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of sampled steps, int64 [N], and the goals they get, [N, G]."""
        row, number = self._draw(count, generator)
        kept, copy = self.capacity // self.copies, row % self.copies
        last = self._last[self._episode[row] % kept * self.copies + copy]
        draw = torch.rand(2, count, generator=generator, device=generator.device).to(row.device)
        later = number + (draw[0] * (last - number + 1)).long().clamp(max=last - number)
        reached = self._rows["next_z"][later % kept * self.copies + copy][:, self.goal]
        fresh = self.new_goals(count, generator)
        goal = torch.where((draw[1] < self.future)[:, None], reached, self._rows["goal"][row])
        is_fresh = (draw[1] >= self.future) & (draw[1] < self.future + self.fresh)
        return row, torch.where(is_fresh[:, None], fresh, goal)

    def some_reached(self, count: int, generator: torch.Generator) -> Tensor:
        """What ``count`` random steps reached, of the latents that goals are made of, [count, G]."""
        return self._rows["next_z"][self._draw(count, generator)[0]][:, self.goal]

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of random steps, and the numbers of these steps in their copies, int64 [N]."""
        kept, played = self.capacity // self.copies, self.added // self.copies
        filled = min(kept, played)
        drawn = torch.randint(filled * self.copies, (count,), generator=generator, device=generator.device)
        drawn = drawn.to(self._episode.device)
        number = played - filled + drawn // self.copies
        return number % kept * self.copies + drawn % self.copies, number

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, by name; its shapes do not depend on how full it is, but for that of ``number``."""
        counts = torch.tensor([self.added], dtype=torch.int64)
        return {**self._rows, "episode": self._episode, "last": self._last, "number": self._number, "added": counts}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: for shapes or numbers that cannot be of this buffer.
        """
        own = {**self._rows, "episode": self._episode, "last": self._last}
        for name, tensor in own.items():
            if state[name].shape != tensor.shape or state[name].dtype != tensor.dtype:
                raise ValueError(f"{name}: got {list(state[name].shape)}; wanted {list(tensor.shape)}")
        number, added = state["number"], int(state["added"][0])
        copies, most = len(number), added
        if added < 0 or (copies and (added % copies or copies > self.capacity)) or (added and not copies):
            raise ValueError(f"added: got {added} steps of {copies} copies")
        for name in ("episode", "last"):
            if int(state[name].min()) < 0 or int(state[name].max()) > most:
                raise ValueError(f"{name}: got numbers beyond the {added} steps that were added")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self._number, self.added = number.to(self._episode.device, copy=True), added
