"""``Memories``: what agents with memory remember of the episodes under way, a row for each seat of each copy.

An agent takes and returns its memory (:class:`~mlbits.agents.agent.Agent`); whoever plays keeps it, here. A seat has
one player for a whole episode, so that a row belongs to whoever sits there, and players who remember equally much share
a block. All rows are zeros when an episode begins.

Example:
    memories = Memories(batch.num_envs, batch.num_seats, batch.device)
    while playing:
        decision = decide(agent, batch, None, obs, mask, generator, memories=memories)
        step = batch.step(decision.action.view(batch.num_envs, batch.num_seats))
        memories.end(step.terminated | step.truncated)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Memories:
    """Memories of agents, by how much they remember.

    Args:
        num_envs: number of copies B.
        num_seats: number of seats P.
        device: where the agents act.
    """

    def __init__(self, num_envs: int, num_seats: int, device: torch.device | str = "cpu") -> None:
        self._shape, self._device = (num_envs, num_seats), device
        self._blocks: dict[int, Tensor] = {}

    def of(self, size: int) -> Tensor:
        """The memories of agents that remember ``size`` numbers, float32 [B * P, size]; the block itself, no copy."""
        if size not in self._blocks:
            self._blocks[size] = torch.zeros(self._shape[0] * self._shape[1], size, device=self._device)
        return self._blocks[size]

    def keep(self, index: Tensor | None, memory: Tensor, active: Tensor | None) -> None:
        """Keep what an agent remembers after its decisions.

        Args:
            index: its rows among the flattened [B * P]; None for all.
            memory: [N, M].
            active: bool [B, P], who acts; the others have passed, and remember what they did. None if all act.
        """
        block = self.of(memory.shape[1])
        if active is not None:
            acts, before = active.flatten(), block
            if index is not None:
                acts, before = acts[index], block[index]
            memory = torch.where(acts[:, None], memory, before)
        if index is None:
            block.copy_(memory)
        else:
            block[index] = memory

    def end(self, ended: Tensor) -> None:
        """Forget the episodes of the copies in which one has ended, bool [B]."""
        for block in self._blocks.values():
            block.view(*self._shape, -1)[ended] = 0

    def forget(self, first: int = 0, last: int | None = None) -> None:
        """Forget the episodes of copies ``first`` to ``last`` - 1; of all copies by default."""
        for block in self._blocks.values():
            block.view(*self._shape, -1)[first:last] = 0

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of all memories; empty where nobody has one."""
        return {str(size): block.clone() for size, block in self._blocks.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore saved memories.

        Raises:
            ValueError: for a memory of another size, or of another number of copies or seats, or that is not finite.
        """
        self._blocks = {}
        for name, block in state.items():
            wanted = (self._shape[0] * self._shape[1], int(name))
            if block.dtype != torch.float32 or tuple(block.shape) != wanted:
                raise ValueError(f"memory {name}: got {block.dtype} {tuple(block.shape)}; wanted float32 {wanted}")
            if not bool(block.isfinite().all()):
                raise ValueError(f"memory {name}: got a number that is not finite")
            self._blocks[wanted[1]] = block.to(self._device, copy=True)
