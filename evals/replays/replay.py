"""``Replay``: one game as it was played, which a page shows and the rules can play again.

What happens in a game is a function of its settings, its seed and the actions, which are all here. Pictures are kept
beside them, each part once; what agents thought of their moves is their word alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.version import __version__

FORMAT, VERSION = "mlbits replay", 1
ENDS = ("terminated", "truncated", "unfinished")
KINDS = ("svg", "webp", "none")
MOST_STEPS = 100_000


class ReplayError(MlbitsError, ValueError):
    """A replay that cannot be written or read."""


@dataclass
class Said:
    """A seat's decision in words.

    Attributes:
        name: the action's name.
        chances: names of legal actions and their probabilities, the most probable first; empty where unknown.
        value: what the player expected to earn from here on, or None where it does not say.
    """

    name: str
    chances: list[tuple[str, float]] = field(default_factory=list)
    value: float | None = None


@dataclass
class Step:
    """One step.

    Attributes:
        actions: one for each seat: a number, or a list of numbers.
        rewards: one for each seat.
        said: by seat, the decisions of those that acted.
    """

    actions: list[Any]
    rewards: list[float]
    said: dict[int, Said]


@dataclass
class Pictures:
    """Pictures made of parts, each stored once.

    Attributes:
        kind: "svg" (parts of a document), "webp" (one part, in base64) or "none".
        parts: the parts.
        list: of each picture the numbers of its parts.
    """

    kind: str = "none"
    parts: list[str] = field(default_factory=list)
    list: list[list[int]] = field(default_factory=list)
    _parts: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    _pictures: dict[tuple[int, ...], int] = field(default_factory=dict, repr=False, compare=False)

    def add(self, parts: Sequence[str]) -> int:
        """The number of the picture made of these parts; what is new is stored."""
        numbers = []
        for part in parts:
            if part not in self._parts:
                self._parts[part] = len(self.parts)
                self.parts.append(part)
            numbers.append(self._parts[part])
        key = tuple(numbers)
        if key not in self._pictures:
            self._pictures[key] = len(self.list)
            self.list.append(numbers)
        return self._pictures[key]

    def of(self, number: int) -> tuple[str, ...]:
        """The parts of a picture."""
        return tuple(self.parts[part] for part in self.list[number])


@dataclass
class Replay:
    """A game.

    Attributes:
        env: id of the environment.
        settings: its settings, as plain data.
        seed: of the copy.
        names: the player in each seat.
        steps: what was played.
        end: "terminated", "truncated" or "unfinished".
        frames: before each step, and at the end, the number of the picture.
        pictures: the pictures.
        frames_per_second: speed at which the game is meant to be seen.
        made_by: the version that wrote it.
    """

    env: str
    settings: dict[str, Any]
    seed: int
    names: list[str]
    steps: list[Step] = field(default_factory=list)
    end: str = "unfinished"
    frames: list[int] = field(default_factory=list)
    pictures: Pictures = field(default_factory=Pictures)
    frames_per_second: int = 1
    made_by: str = f"mlbits {__version__}"

    def returns(self) -> list[float]:
        """What each seat has earned."""
        return [math.fsum(step.rewards[seat] for step in self.steps) for seat in range(len(self.names))]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        found = {"format": FORMAT, "version": VERSION, **asdict(self)}
        found["pictures"] = {"kind": self.pictures.kind, "parts": self.pictures.parts, "list": self.pictures.list}
        return found


def from_json(data: Any) -> Replay:
    """A replay from plain data, which may be a stranger's.

    Raises:
        ReplayError: naming the entry that is wrong.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ReplayError("it is no replay of mlbits; wanted one that mlbits replay wrote")
    if data.get("version") != VERSION:
        raise ReplayError(f"version: got {str(data.get('version'))[:20]}; wanted {VERSION}")
    names = _entry(data, "names", list, lambda v: 0 < len(v) <= 100 and all(isinstance(name, str) for name in v))
    steps = _entry(data, "steps", list, lambda v: len(v) <= MOST_STEPS)
    frames = _entry(data, "frames", list, lambda v: len(v) == len(steps) + 1)
    pictures = _pictures(_entry(data, "pictures", dict))
    if any(not _whole(frame, len(pictures.list)) for frame in frames) and pictures.kind != "none":
        raise ReplayError(f"frames: wanted {len(steps) + 1} numbers below {len(pictures.list)}")
    return Replay(
        env=_entry(data, "env", str),
        settings=_entry(data, "settings", dict),
        seed=_entry(data, "seed", int, lambda v: 0 <= v < 2**63),
        names=names,
        steps=[_step(step, number, len(names)) for number, step in enumerate(steps)],
        end=_entry(data, "end", str, lambda v: v in ENDS),
        frames=frames,
        pictures=pictures,
        frames_per_second=_entry(data, "frames_per_second", int, lambda v: 0 < v <= 1000),
        made_by=_entry(data, "made_by", str),
    )


def _pictures(data: Mapping[str, Any]) -> Pictures:
    kind = _entry(data, "kind", str, lambda v: v in KINDS)
    parts = _entry(data, "parts", list, lambda v: all(isinstance(part, str) for part in v))
    listed = _entry(
        data, "list", list, lambda v: all(isinstance(p, list) and all(_whole(k, len(parts)) for k in p) for p in v)
    )
    return Pictures(kind, parts, listed)


def _step(data: Any, number: int, seats: int) -> Step:
    where = f"step {number}: "
    actions = _entry(data, "actions", list, lambda v: len(v) == seats and all(_is_action(a) for a in v), where)
    rewards = _entry(data, "rewards", list, lambda v: len(v) == seats and all(_number(r) for r in v), where)
    said = _entry(data, "said", dict, lambda v: all(key.isdecimal() and int(key) < seats for key in v), where)
    return Step(actions, rewards, {int(seat): _said(one, where) for seat, one in said.items()})


def _said(data: Any, where: str) -> Said:
    chances = _entry(data, "chances", list, lambda v: all(_is_chance(one) for one in v), where)
    value = data.get("value")
    if value is not None and not _number(value):
        raise ReplayError(f"{where}value: got {str(value)[:40]!r}; wanted a number")
    return Said(_entry(data, "name", str, where=where), [(name, chance) for name, chance in chances], value)


def _is_action(value: Any) -> bool:
    return all(_number(part) for part in value) if isinstance(value, list) else _number(value)


def _is_chance(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _number(value[1])


def _entry(data: Any, name: str, kind: type, good: Any = None, where: str = "") -> Any:
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) or (good is not None and not good(value)):
        shown = "none" if value is None else str(value)[:60]
        raise ReplayError(
            f"{where}{name}: got {shown!r}, which is damaged or missing; wanted what mlbits replay writes"
        )
    return value


def _whole(value: Any, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
