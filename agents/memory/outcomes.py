"""A replay buffer of positions with the outcomes of their episodes, for agents that learn from results.

A position is stored when its seat acts, with the agent's notes about its decision; it can be sampled once its episode
is over and its outcome is known: the seat's discounted return from there on. With ``trace`` below 1 the outcome is a
lambda-return (Sutton and Barto 2018, section 12.1) over the notes ``value`` of this and all later decisions in the
episode, of either seat if two have opposite rewards.

Where an episode was truncated, the rest is estimated by a note ``q``, the value of the action that was played, from
that decision on: that of the seat's own last decision, or with two seats whose rewards are opposite that of the last
decision of either (the other seat sees the negative of it).

A decision whose note ``off_policy`` is True was not the agent's own choice (a random opening, say). It and all
decisions before it in its episode are not sampled, because their outcomes depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, OutcomeSpec, Rollout, pick
from mlbits.envs.engine.memory import memory_bytes

_OPEN = (
    "slot",
    "copy",
    "seat",
    "earned",
    "factor",
    "before",
    "before_factor",
    "own",
    "own_factor",
    "q",
    "kept",
    "time",
    "estimate",
    "weight",
)


class Outcomes(NamedTuple):
    """Sampled positions.

    Attributes:
        obs: [N, ...] or a dict of those.
        mask: the legal actions, bool [N, A], or None.
        notes: the agent's notes by name, [N, ...].
        outcome: the seat's discounted return from the position on, float32 [N].
    """

    obs: Any
    mask: Tensor | None
    notes: Mapping[str, Tensor]
    outcome: Tensor


class OutcomeReplay:
    """A ring of positions.

    Args:
        spec: capacity and discount.
        batch: the copies that will be played; their shapes are read.

    Attributes:
        added: number of positions that could ever be sampled.

    Raises:
        AgentError: if the capacity does not hold two rollouts.
    """

    def __init__(self, spec: OutcomeSpec, batch: Any) -> None:
        self.capacity, self.discount, self.trace, self.device = spec.capacity, spec.discount, spec.trace, batch.device
        self.seats = batch.num_seats
        rows = batch.num_envs * spec.num_steps
        if spec.capacity < 2 * rows:
            raise AgentError(f"buffer_size: got {spec.capacity}; wanted at least two rollouts, {2 * rows}")
        self.added = self._head = self._time = 0  # steps so far
        self._opposite = True  # whether the rewards of two seats have been each other's negatives
        self._rows: dict[str, Tensor] = {}
        self._outcome = torch.zeros(spec.capacity, device=self.device)
        self._usable = torch.zeros(spec.capacity, dtype=torch.bool, device=self.device)
        self._ready: Tensor | None = None  # slots that may be sampled
        self._open = {name: torch.zeros(0, dtype=_dtype(name), device=self.device) for name in _OPEN}

    def __len__(self) -> int:
        """Positions that can be sampled."""
        return len(self._sampleable())

    def add(self, rollout: Rollout) -> None:
        """Store a rollout's decisions, and the outcomes of the episodes that ended in it.

        Raises:
            AgentError: if a truncated episode's last decision has no note ``q``, or the buffer is too large.
        """
        notes = dict(rollout.notes or {})
        steps = rollout.reward.shape[0]
        for t in range(steps):
            acted = (
                torch.ones_like(rollout.reward[t], dtype=torch.bool) if rollout.active is None else rollout.active[t]
            )
            copy, seat = acted.nonzero(as_tuple=True)
            if len(copy):
                self._store(rollout, notes, t, copy, seat)
            self._earn(rollout.reward[t])
            self._time += 1
            ended = rollout.terminated[t] | rollout.truncated[t]
            if bool(ended.any()):
                self._close(rollout.terminated[t], ended, "q" in notes)

    def _store(self, rollout: Rollout, notes: Mapping[str, Tensor], t: int, copy: Tensor, seat: Tensor) -> None:
        """Append the decisions of one step to the ring, as open ones."""
        count = len(copy)
        slot = (self._head + torch.arange(count, device=self.device)) % self.capacity
        self._head = (self._head + count) % self.capacity
        values = {f"note.{name}": note[t][copy, seat] for name, note in notes.items()}
        obs = pick(rollout.obs, t)
        for key, part in obs.items() if isinstance(obs, dict) else [("", obs)]:
            values[f"obs.{key}"] = part[copy, seat]
        if rollout.legal_mask is not None:
            values["mask"] = rollout.legal_mask[t][copy, seat]
        if not self._rows:
            self._allocate(values)
        for name, value in values.items():
            self._rows[name][slot] = value
        self._usable[slot] = False
        self._ready = None
        overwritten = torch.isin(self._open["slot"], slot)
        if bool(overwritten.any()):
            self._open = {name: value[~overwritten] for name, value in self._open.items()}
        off = values.get("note.off_policy")
        if off is not None and bool(off.any()):
            self._open["kept"] &= ~torch.isin(self._open["copy"], copy[off])
        self._note_time(copy, seat)
        own = values.get("note.value")
        if self.trace < 1:
            if own is None:
                raise AgentError("trace: the agent's decisions have no note 'value'; wanted trace=1")
            self._look_back(copy, seat, own.float())
        one, nothing = torch.ones(count, device=self.device), torch.zeros(count, device=self.device)
        new = {
            "slot": slot, "copy": copy, "seat": seat, "earned": nothing, "factor": one, "before": nothing,
            "before_factor": one, "own": nothing, "own_factor": one, "q": values.get("note.q", nothing).float(),
            "kept": torch.ones_like(copy, dtype=torch.bool) if off is None else ~off,
            "time": torch.full_like(copy, self._time),
            "estimate": nothing if own is None or self.trace == 1 else (1 - self.trace) * own.float(),
            "weight": one * self.trace,
        }  # fmt: skip
        self._open = {name: torch.cat([self._open[name], new[name]]) for name in _OPEN}

    def _allocate(self, values: Mapping[str, Tensor]) -> None:
        """Memory for rows like these [n, ...]."""
        each = sum(value[0].numel() * value.element_size() for value in values.values())
        size, room = self.capacity * each, memory_bytes(self.device)
        if size > room:
            raise AgentError(
                f"buffer_size: {self.capacity:,} positions of this game take {size / 2**30:,.1f} GiB, and there are "
                f"{room / 2**30:,.1f} GiB; wanted at most {int(room / each):,}, with room for the rest"
            )
        self._rows = {name: value.new_zeros(self.capacity, *value.shape[1:]) for name, value in values.items()}

    def _note_time(self, copy: Tensor, seat: Tensor) -> None:
        """Keep what the open decisions had earned when these seats decide."""
        now = self._open
        here = torch.isin(now["copy"], copy)
        own = torch.isin(now["copy"] * self.seats + now["seat"], copy * self.seats + seat)
        for name, factor, which in (("before", "before_factor", here), ("own", "own_factor", own)):
            now[name] = torch.where(which, now["earned"], now[name])
            now[factor] = torch.where(which, now["factor"], now[factor])

    def _look_back(self, copy: Tensor, seat: Tensor, value: Tensor) -> None:
        """Add the values of new decisions [n] to the lambda-returns of the open ones before them."""
        now = self._open
        size = (int(max(copy.max(), now["copy"].max() if len(now["copy"]) else 0)) + 1, self.seats)
        values, known = torch.zeros(size, device=self.device), torch.zeros(size, dtype=torch.bool, device=self.device)
        if self.seats == 2 and self._opposite:
            values[copy, 1 - seat], known[copy, 1 - seat] = -value, True
        values[copy, seat], known[copy, seat] = value, True
        here = now["copy"], now["seat"]
        later = now["earned"] + now["factor"] * values[here]
        now["estimate"] = now["estimate"] + known[here] * (1 - self.trace) * now["weight"] * later
        now["weight"] = torch.where(known[here], self.trace * now["weight"], now["weight"])

    def _earn(self, reward: Tensor) -> None:
        """Add a step's rewards [B, P] to the open decisions."""
        now = self._open
        self._opposite = self._opposite and self.seats == 2 and bool((reward.sum(1) == 0).all())
        now["earned"] = now["earned"] + now["factor"] * reward[now["copy"], now["seat"]]
        now["factor"] = now["factor"] * self.discount

    def _close(self, terminated: Tensor, ended: Tensor, has_q: bool) -> None:
        """Settle the open decisions of the copies whose episodes ended, bool [B] each."""
        now = self._open
        over = ended[now["copy"]]
        done = {name: value[over] for name, value in now.items()}
        outcome, cut = done["earned"], ~terminated[done["copy"]]
        if bool(cut.any()):
            if not has_q:
                raise AgentError("notes: an episode was truncated, and its last decision has no note 'q' to go on from")
            order = torch.arange(len(done["copy"]), device=self.device)  # of time
            stream = done["copy"] * self.seats + done["seat"]
            own = torch.zeros(len(ended) * self.seats, dtype=torch.int64, device=self.device)
            own = own.scatter_reduce(0, stream, order, "amax")[stream]
            rest = done["own"] + done["own_factor"] * done["q"][own]
            if self._opposite:
                last = torch.zeros(len(ended), dtype=torch.int64, device=self.device)
                last = last.scatter_reduce(0, done["copy"], order, "amax")[done["copy"]]
                other = done["before"] - done["before_factor"] * done["q"][last]
                rest = torch.where(done["time"][last] > done["time"][own], other, rest)
            outcome = torch.where(cut, rest, outcome)
        self._outcome[done["slot"]] = done["estimate"] + done["weight"] * outcome
        self._usable[done["slot"]] = done["kept"]
        self._ready = None
        self.added += int(done["kept"].sum())
        self._open = {name: value[~over] for name, value in now.items()}

    def cut(self) -> None:
        """Forget the episodes that have not ended: the copies were reset."""
        self._open = {name: value[:0] for name, value in self._open.items()}

    def sample(self, count: int, generator: torch.Generator) -> Outcomes:
        """Sample positions uniformly, with replacement.

        Args:
            count: number of positions N.
            generator: for the draws.

        Raises:
            AgentError: if no episode is over yet.
        """
        ready = self._sampleable()
        if len(ready) == 0:
            raise AgentError("replay: no episode is over yet; wanted at least one")
        index = ready[torch.randint(len(ready), (count,), generator=generator, device=generator.device).to(self.device)]
        obs = {name[4:]: self._rows[name][index] for name in self._rows if name.startswith("obs.")}
        return Outcomes(
            obs=obs.get("", obs),
            mask=self._rows["mask"][index] if "mask" in self._rows else None,
            notes={name[5:]: self._rows[name][index] for name in self._rows if name.startswith("note.")},
            outcome=self._outcome[index],
        )

    def _sampleable(self) -> Tensor:
        if self._ready is None:
            self._ready = self._usable.nonzero().squeeze(-1)
        return self._ready

    def state_dict(self) -> dict[str, Tensor]:
        """The positions, their outcomes and the open decisions."""
        state = {f"rows.{name}": value for name, value in self._rows.items()}
        state |= {f"open.{name}": value for name, value in self._open.items()}
        state |= {"outcome": self._outcome, "usable": self._usable, "counts": self._counts()}
        return {name: value.clone().contiguous() for name, value in state.items()}

    def _counts(self) -> Tensor:
        return torch.tensor([self._head, self.added, self._time, int(self._opposite)])

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if it was saved by a buffer of another capacity.
        """
        if state["outcome"].shape != self._outcome.shape:
            raise ValueError(f"replay: got a capacity of {len(state['outcome'])}; wanted {self.capacity}")
        placed = {name: value.to(self.device, copy=True) for name, value in state.items()}
        self._rows = {name[5:]: value for name, value in placed.items() if name.startswith("rows.")}
        self._open = {name: placed[f"open.{name}"] for name in _OPEN}
        self._outcome, self._usable, self._ready = placed["outcome"], placed["usable"], None
        self._head, self.added, self._time, opposite = (int(k) for k in state["counts"])
        self._opposite = bool(opposite)


def _dtype(name: str) -> torch.dtype:
    if name in ("slot", "copy", "seat", "time"):
        return torch.int64
    return torch.bool if name == "kept" else torch.float32
