"""Uniform draws among the entries of a buffer that may be used."""

from __future__ import annotations

import torch
from torch import Tensor

_REDRAWS = 20


def draw_usable(usable: Tensor, count: int, generator: torch.Generator) -> Tensor | None:
    """Numbers of ``count`` entries that may be used, int64 [count], drawn uniformly with replacement.

    On a CPU those that may not are drawn again. On a GPU the host would have to ask whether there are any; there all
    usable entries are numbered.

    Args:
        usable: bool [N].
        count: how many.
        generator: for the draws.

    Returns:
        The numbers; None if nothing is usable (which a GPU does not find out: it returns the last entry).
    """
    if usable.is_cpu:
        return _draw_again(usable, count, generator)
    numbers = usable.cumsum(0)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device).to(usable.device)
    rank = (drawn * numbers[-1]).long()
    return torch.searchsorted(numbers, rank, right=True).clamp_(max=len(usable) - 1)


def _draw_again(usable: Tensor, count: int, generator: torch.Generator) -> Tensor | None:
    """Entries that may not be used, such as the opponents' half of the seats, are drawn again.

    Searching the whole buffer takes longer than the rest of an update, so that is done only if almost nothing is
    usable.
    """

    def draw(number: int) -> Tensor:
        return torch.randint(number, (count,), generator=generator, device=generator.device).to(usable.device)

    index = draw(len(usable))
    for _ in range(_REDRAWS):
        wrong = ~usable[index]
        if not bool(wrong.any()):
            return index
        index = torch.where(wrong, draw(len(usable)), index)
    fit = usable.nonzero().squeeze(-1)
    if len(fit) == 0:
        return None
    again = fit[draw(len(fit))]
    return torch.where(usable[index], index, again)
