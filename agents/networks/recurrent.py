"""Networks with memory: a GRU or LSTM over the observations of an episode, under a policy and a value function.

Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014), in cuDNN's form, which is also torch's
(the reset gate acts after the product); Hochreiter and Schmidhuber, "Long short-term memory" (1997), with forget gates
(Gers et al. 2000) whose biases start at 1 (Jozefowicz et al. 2015). Other weights are orthogonal, other biases 0.

A network acts one step at a time, from what it remembers, and learns from sequences of an actor's decisions
(:class:`Sequences`), through which the gradient flows back. Each begins with the memory that was stored when it was
played; where an episode begins inside one, the memory is zeros again.

Example:
    >>> import torch
    >>> from gymnasium import spaces
    >>> from mlbits.agents.maths.action_distributions import Categorical
    >>> draw = torch.Generator().manual_seed(0)
    >>> network = RecurrentActorCritic(spaces.Discrete(3), Categorical(2), (8,), draw, kind="gru", width=4)
    >>> params, memory = network.step(torch.tensor([0, 2]), torch.zeros(2, network.memory_size))
    >>> tuple(params.shape), tuple(memory.shape)
    ((2, 2), (2, 4))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.agent import Rollout, true_places
from mlbits.agents.maths.action_distributions import ActionDistribution
from mlbits.agents.networks.initial_weights import orthogonal
from mlbits.agents.networks.mlp import MLP, Activation
from mlbits.agents.networks.own import features_of
from mlbits.agents.networks.policy_value import outputs_of, with_log_std
from mlbits.envs.engine.on_host import on_host

Kind = Literal["gru", "lstm"]


class Known(NamedTuple):
    """What the host knows of sequences.

    Attributes:
        decisions: how many there are; None on a CPU, where the grid says as fast.
        resets: for each place from the first to the last of the longest sequence, whether an episode begins in any.
    """

    decisions: int | None
    resets: list[bool]


class Sequences(NamedTuple):
    """S sequences of up to L decisions, each of one seat of one copy, in the order in which they were made.

    Attributes:
        grid: the decisions as rows of a rollout's flat data, int64 [L, S]; short sequences are filled with -1.
        resets: bool [L, S], where an episode begins inside a sequence.
        memory: what was remembered before the first, [S, M].
        known: what the host knows of them; None if nothing yet.
    """

    grid: Tensor
    resets: Tensor
    memory: Tensor
    known: Known | None = None

    @property
    def number(self) -> int:
        """How many sequences, S."""
        return self.grid.shape[1]

    def pick(self, part: Tensor) -> Sequences:
        """The sequences ``part`` [s] alone."""
        grid, resets = self.grid[:, part], self.resets[:, part]
        known = _known(grid, resets)
        longest = len(known.resets)
        return Sequences(grid[:longest], resets[:longest], self.memory[part], known)

    @property
    def places(self) -> Tensor:
        """Where the grid, flattened, holds decisions, int64 [n]."""
        return true_places((self.grid >= 0).flatten(), None if self.known is None else self.known.decisions)[0]

    @property
    def rows(self) -> Tensor:
        """The rows of all decisions, int64 [n], in the order in which a network unrolls them."""
        return self.grid.flatten()[self.places]


def _known(grid: Tensor, resets: Tensor) -> Known:
    """What the host needs to know of sequences, read at once."""
    there = grid >= 0
    begun, each, again = on_host(there.any(1), there.sum(), resets.any(1))
    return Known(None if grid.is_cpu else int(each), again[: np.count_nonzero(begun)].tolist())


def sequences_of(rollout: Rollout, length: int = 0) -> Sequences:
    """The learner's decisions in a rollout, as sequences.

    Args:
        rollout: with ``memory``.
        length: most decisions in a sequence, L; 0 for all of a seat's.
    """
    assert rollout.memory is not None
    steps, copies, seats = rollout.reward.shape
    device = rollout.reward.device
    active = rollout.active
    if active is None:
        active = torch.ones(steps, copies, seats, dtype=torch.bool, device=device)
    number = active.flatten().cumsum(0).sub_(1).view(active.shape)  # of the row in the flat data
    ended = rollout.terminated | rollout.truncated
    episode = (ended.cumsum(0) - ended.long())[..., None].expand(active.shape)
    # Decisions by seat of a copy, then by time.
    host = rollout.host
    total = None if host is None else active.numel() if rollout.active is None else host.num_active
    stream, time = true_places(active.permute(1, 2, 0).flatten(0, 1), total)
    copy, seat = stream // seats, stream % seats
    first = torch.searchsorted(stream, torch.arange(copies * seats, device=device))
    place = torch.arange(len(stream), device=device) - first[stream]
    if rollout.active is None:
        each = np.full(copies * seats, steps)
    else:
        (each,) = on_host(active.sum(0).flatten())  # decisions of each seat of a copy
    longest = int(each.max(initial=0))
    length = min(length, longest) if length else longest
    slot = place % length if length else place
    begins = slot == 0
    column = begins.cumsum(0) - 1
    number_of = int((-(-each // length)).sum()) if length else 0
    grid = torch.full((length, number_of), -1, dtype=torch.int64, device=device)
    resets = torch.zeros(grid.shape, dtype=torch.bool, device=device)
    grid[slot, column] = number[time, copy, seat]
    now = episode[time, copy, seat]
    resets[slot[1:], column[1:]] = (now[1:] != now[:-1]) & ~begins[1:]
    first_of = true_places(begins, None if host is None else number_of)[0]
    memory = rollout.memory[time[first_of], copy[first_of], seat[first_of]]
    return Sequences(grid, resets, memory)


class _InputLayer(nn.Module):
    """A linear layer over the parts of an observation: a table for indices, a matrix for the vector."""

    def __init__(self, features: Any, out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.is_index = tuple(features.is_index)
        tables = orthogonal(sum(features.widths), out, 1.0, generator).split(features.widths)
        self.tables = nn.ParameterList(tables)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """[N, out]."""
        total: Tensor = self.bias
        for part, table, is_index in zip(parts, self.tables, self.is_index, strict=True):
            total = total + F.embedding(part, table).sum(1) if is_index else torch.addmm(total, part, table)
        return total


class Memory(nn.Module):
    """A GRU or LSTM over the features of observations; its output is the first H numbers of what it remembers.

    Args:
        features: for the widths of the input parts.
        kind: "gru" or "lstm".
        width: H.
        generator: the source of initial weights.

    Attributes:
        size: how many numbers it remembers: H, for an LSTM 2 H.
    """

    def __init__(self, features: Any, kind: Kind, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.kind, self.width = kind, width
        self.gates, self.size = (3, width) if kind == "gru" else (4, 2 * width)
        self.inputs = _InputLayer(features, self.gates * width, generator)
        blocks = [orthogonal(width, width, 1.0, generator) for _ in range(self.gates)]
        self.weight, self.bias = nn.Parameter(torch.cat(blocks, 1)), nn.Parameter(torch.zeros(self.gates * width))
        if kind == "lstm":  # gates: input, forget, cell, output
            self.bias.data[width : 2 * width] = 1.0

    def step(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """What is remembered afterwards, [N, M], from the input layer's output [N, gates * H] and the memory [N, M]."""
        width = self.width
        if self.kind == "gru":
            hidden = torch.addmm(self.bias, memory, self.weight)
            reset, update = torch.sigmoid(inputs[:, : 2 * width] + hidden[:, : 2 * width]).chunk(2, 1)
            new = torch.tanh(torch.addcmul(inputs[:, 2 * width :], reset, hidden[:, 2 * width :]))
            return torch.lerp(new, memory, update)
        hidden, cell = memory.split(width, 1)
        gates = torch.addmm(inputs + self.bias, hidden, self.weight)
        enter, keep = torch.sigmoid(gates[:, : 2 * width]).chunk(2, 1)
        new, out = torch.tanh(gates[:, 2 * width : 3 * width]), torch.sigmoid(gates[:, 3 * width :])
        cell = torch.addcmul(enter * new, keep, cell)
        return torch.cat([out * torch.tanh(cell), cell], 1)

    def unroll(self, parts: Sequence[Tensor], sequences: Sequences) -> Tensor:
        """The outputs [n, H] of all decisions, in the order of ``sequences.rows``.

        Args:
            parts: features of those decisions, in the same order.
            sequences: which of them follow one another, and from what.
        """
        there = sequences.grid >= 0
        inputs = self.inputs(parts)
        place = (there.flatten().cumsum(0) - 1).clamp(min=0).view(there.shape)
        apart = inputs.index_select(0, place.flatten()).view(*there.shape, -1)
        memory, outputs = sequences.memory, []
        resets = (sequences.known or _known(sequences.grid, sequences.resets)).resets
        for t in range(len(apart)):
            if resets[t]:
                memory = memory.masked_fill(sequences.resets[t][:, None], 0.0)
            memory = self.step(apart[t], memory)
            outputs.append(memory[:, : self.width])
        return torch.stack(outputs).flatten(0, 1).index_select(0, sequences.places)


class _Output:
    """The output of a memory, as the features of an MLP."""

    def __init__(self, width: int) -> None:
        self.is_index, self.widths, self.fan_in = [False], [width], width


class RecurrentActorCritic(nn.Module):
    """A policy and a value function with one memory: two MLPs over what a GRU or LSTM has made of the episode.

    Args:
        space: observation space of a seat.
        distribution: the distribution over actions that the policy's outputs parametrise.
        hidden: widths of the hidden layers of each MLP.
        generator: the source of initial weights.
        kind: "gru" or "lstm".
        width: of the memory's output, H.
        log_std: initial log standard deviation, for continuous actions.
        activation: of the hidden layers.
        encoder: the name of an encoder of one's own (:mod:`mlbits.agents.networks.own`), or "".

    Attributes:
        memory_size: how many numbers it remembers, M.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        distribution: ActionDistribution,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        kind: Kind,
        width: int,
        log_std: float = 0.0,
        activation: Activation = "tanh",
        encoder: str = "",
    ) -> None:
        super().__init__()
        size = outputs_of(distribution)
        self.features = features_of(encoder, space, generator)
        self.memory = Memory(self.features, kind, width, generator)
        output: Any = _Output(width)
        how: dict[str, Any] = {"activation": activation, "initial": "orthogonal"}
        self.actor = MLP(output, hidden, size, generator, **how, head_gain=0.01)
        self.critic = MLP(output, hidden, 1, generator, **how)
        self.log_std = nn.Parameter(torch.full((size,), log_std)) if distribution.gaussian else None
        self.memory_size = self.memory.size

    def step(self, obs: Any, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution's parameters [N, size] and what is remembered afterwards, [N, M]."""
        memory = self._remember(obs, memory)
        return with_log_std(self.actor([memory[:, : self.memory.width]]), self.log_std), memory

    def value(self, obs: Any, memory: Tensor) -> Tensor:
        """Values [N] of observations, with what was remembered before each."""
        return self.critic([self._remember(obs, memory)[:, : self.memory.width]]).squeeze(-1)

    def unroll(self, obs: Any, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Parameters [n, size] and values [n] of the decisions in sequences, in the order of ``sequences.rows``."""
        out = [self.memory.unroll(self.features(obs), sequences)]
        return with_log_std(self.actor(out), self.log_std), self.critic(out).squeeze(-1)

    def _remember(self, obs: Any, memory: Tensor) -> Tensor:
        return self.memory.step(self.memory.inputs(self.features(obs)), memory)
