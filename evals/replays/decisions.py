"""What a seat may do now and what it thinks of it, in words: for pages, replays and the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, rows
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.play.moves import Moves
from mlbits.evals.replays.replay import Said
from mlbits.selfplay.lineup import positions_of

_MOST_CHANCES = 24  # of a step's decision that a replay keeps
_TOKEN = re.compile(r"[A-Za-z0-9]+")


class Slot(NamedTuple):
    """One part of an action: what it decides, and the names of its legal numbers."""

    heading: str
    names: dict[int, str]


class Words:
    """Names of the actions of an environment.

    Args:
        batch: copies of it.

    Attributes:
        game: the game, if it is one of mlbits' own.
        moves: names of its moves, if they are Discrete.
    """

    def __init__(self, batch: AnyBatch) -> None:
        self.batch = batch
        self.game = batch.game if isinstance(batch, GameBatch) else None
        self.moves = Moves(self.game) if self.game is not None and self.game.action.kind == "discrete" else None
        self._meanings = () if self.game is not None else _meanings(batch)

    def slots(self, seat: int, copy: int = 0) -> list[Slot]:
        """What a seat decides now, one entry for each part of its action; none for continuous actions."""
        if self.batch.action.kind == "continuous":
            return []
        mask = self.batch.legal_mask
        legal = np.ones(self.batch.action.mask_size, bool) if mask is None else mask[copy, seat].cpu().numpy()
        if self.moves is not None:
            state = self.record(copy)[0]
            names = {int(a): self.moves.name(state, seat, int(a)) for a in np.flatnonzero(legal)}
            return [Slot("", names)]
        if self.game is not None and self.game.decisions is not None:
            decided = self.game.decisions(*self.record(copy), seat, legal)
            return [Slot(heading, dict(names)) for heading, names in decided]
        parts = np.split(legal, np.cumsum(self.batch.action.nvec)[:-1])
        several = len(parts) > 1
        return [
            Slot(f"part {k + 1}" if several else "", {int(a): self._number(int(a)) for a in np.flatnonzero(part)})
            for k, part in enumerate(parts)
        ]

    def name(self, seat: int, action: Any, slots: list[Slot]) -> str:
        """The name of a seat's action, a number or several."""
        if self.batch.action.kind == "continuous":
            return ", ".join(f"{float(part):.3g}" for part in np.atleast_1d(action))
        parts = np.atleast_1d(action).tolist()
        return ", ".join(slot.names.get(part, str(part)) for slot, part in zip(slots, parts, strict=False))

    def shapes(self, seat: int) -> Mapping[str, str]:
        """Where one may click on the drawing, SVG path data by name; empty where the game does not say."""
        if self.game is None or self.game.shapes is None:
            return {}
        return self.game.shapes(*self.record(0), seat)

    def record(self, copy: int = 0) -> tuple[Any, Any]:
        """The state and the parameters of a copy of a game of mlbits' own, as records."""
        batch: Any = self.batch
        found: tuple[Any, Any] = batch.copies.record(copy)
        return found

    def _number(self, action: int) -> str:
        return self._meanings[action].lower() if action < len(self._meanings) else str(action)


def path_of(name: str, shapes: Mapping[str, str]) -> tuple[str, ...]:
    """The shapes to click for an action, in the order in which its name names them; empty for none.

    >>> path_of("e2e4", {"e2": "", "e4": ""}), path_of("F STP/SC S A MOS - LVN", {"STP": "", "MOS": "", "LVN": ""})
    (('e2', 'e4'), ('STP', 'MOS', 'LVN'))
    """
    if name in shapes:
        return (name,)
    found: list[str] = []
    for token in _TOKEN.findall(name):
        if token in shapes:
            found.append(token)
        elif len(token) in (4, 5) and token[:2] in shapes and token[2:4] in shapes:
            found += [token[:2], token[2:4]]
    return tuple(found)


class Opinion(NamedTuple):
    """What a player thinks of a position: probabilities of its actions [A] or None, and its value or None."""

    chances: Tensor | None
    value: float | None


@torch.no_grad()
def opinion(agent: Agent, batch: AnyBatch, seat: int, copy: int = 0) -> Opinion:
    """What a player thinks of a seat's position; an agent that plans looks ahead for it once more."""
    who: Any = agent
    row = torch.tensor([copy * batch.num_seats + seat])
    obs, mask = rows(batch.obs, 2), None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1)[row]
    seen = {key: part[row] for key, part in obs.items()} if isinstance(obs, dict) else obs[row]
    if hasattr(who, "look") and isinstance(batch, GameBatch):
        found = who.look(positions_of(batch, row, seen, mask), torch.Generator().manual_seed(0))
        return Opinion(found.policy[0], float(found.value[0]))
    chances = value = None
    if batch.action.kind == "discrete" and hasattr(who, "action_probabilities"):
        chances = who.action_probabilities(seen, mask)[0]
    if hasattr(who, "state_values"):
        value = float(who.state_values(seen)[0])
    elif batch.action.kind == "discrete" and hasattr(who, "policy_and_value"):
        value = float(who.policy_and_value(seen, mask)[1][0])
    return Opinion(chances, value)


def said(words: Words, seat: int, action: Any, thought: Opinion | None, copy: int = 0) -> Said:
    """A seat's decision in words; called before it is played."""
    slots = words.slots(seat, copy)
    chances: list[tuple[str, float]] = []
    if thought is not None and thought.chances is not None and len(slots) == 1:
        known = {name: float(thought.chances[number]) for number, name in slots[0].names.items()}
        chances = sorted(((name, round(p, 4)) for name, p in known.items()), key=lambda c: -c[1])[:_MOST_CHANCES]
    value = None if thought is None or thought.value is None else float(f"{thought.value:.4g}")
    return Said(words.name(seat, action, slots), chances, value)


def _meanings(batch: AnyBatch) -> tuple[str, ...]:
    """The names that an Atari game gives its actions."""
    env = getattr(batch, "envs", [None])[0]
    found = getattr(getattr(env, "unwrapped", None), "get_action_meanings", tuple)
    return tuple(str(name) for name in found())
