"""A network for orders on a graph: graph convolutions over areas, and a decoder that gives one order per slot in turn.

For action spaces that are an :class:`~mlbits.envs.core.order_space.OrderSpace`, and observations with "areas" [N, F],
"status" [S] and "slots" [K]. Like the network of Paquette et al., "No-Press Diplomacy: Modeling Multi-Agent Gameplay"
(2019), section 4, it has an encoder of graph convolutions over the board and an autoregressive decoder of orders. It is
smaller, and differs in that

- the convolution (their equation 1) has a separate weight for the area itself, and another for the mean of all areas;
- the decoder has no recurrent state: each order is conditioned on the sum of the embeddings of the orders before it. So
  given orders are scored in one pass (teacher forcing), and only sampling goes slot by slot;
- the score of an order depends on its embedding (of its kind and its acting, other and target areas) and on the current
  encodings of the areas that it names, which the acting area's query attends to.

Scores are computed for legal orders only: a unit has about 20 in a position, a board's vocabulary thousands.

The entropy that it reports is the sum over the slots of the conditional entropies given the orders before,

    S(a) = sum_k H_k(a_<k),    E_{a ~ pi}[S(a)] = H(pi)    (the chain rule),

which estimates the joint entropy from the one action that was sampled. The orders before are sampled from the same
policy, so besides grad S the gradient of H has a score-function term, which favours orders that leave more entropy to
the slots after them:

    grad H = E[grad S(a) + sum_j grad log pi_j(a_j | a_<j) sum_{k>j} (H_k(a_<k) - b_k)].

The reported entropy has the value S and, as its gradient, the term in brackets. The baseline b_k is the entropy of slot
k if no orders were given before it. It does not depend on the action, so it adds no bias, and the weight that remains
is only the change due to the orders before. Without a baseline every sampled order would become more probable; in
PPO's later steps on a rollout, that would pull towards the policy that collected it. (In those steps the actions are no
longer sampled from the current policy, so this gradient is biased to the extent that the ratios differ from 1.)

Example:
    mlbits train ppo mlbits/DiplomacyMini-v0
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.agent import AgentError, true_places
from mlbits.agents.maths.action_distributions import sharpened
from mlbits.agents.networks.initial_weights import orthogonal
from mlbits.envs.core.order_space import OrderSpace

_WORD, _LOOK = 32, 16  # widths of an order's embedding ("word"), and of the query and key for an area ("look")
_FORBIDDEN = -1e9  # the score of illegal orders: finite, so that gradients are finite


def fits_orders(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> bool:
    """Whether this network fits the spaces: an OrderSpace, and a Dict with "areas", "status" and "slots"."""
    return (
        isinstance(action_space, OrderSpace)
        and isinstance(observation_space, spaces.Dict)
        and {"areas", "status", "slots"} <= set(observation_space.keys())
    )


class OrderParams(NamedTuple):
    """The encoder's output for N rows of observations, which is the decoder's input.

    Attributes:
        areas: encodings of the areas, [N, areas, d].
        board: encoding of the whole board: all areas and the status, [N, d].
        slots: 1 + the number of the list that each slot chooses from, 0 for none, int64 [N, K].
    """

    areas: Tensor
    board: Tensor
    slots: Tensor


class _Choices(NamedTuple):
    """The legal orders of S slots, at most L each, padded to L.

    Attributes:
        log_prob: [S, L], very negative in the padding.
        choice: the orders' indices in their lists, [S, L], -1 in the padding.
    """

    log_prob: Tensor
    choice: Tensor


class OrderDecoder(nn.Module):
    """Scores the legal orders of slots, given the orders of the slots before.

    Args:
        space: the orders.
        width: of the encoder's encodings, d.
        generator: the source of initial weights.
    """

    list_start: Tensor
    list_actor: Tensor
    kind: Tensor
    actor: Tensor
    other: Tensor
    target: Tensor
    other_look: Tensor
    target_look: Tensor

    def __init__(self, space: OrderSpace, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.slots, self.width = len(space.nvec), int(space.nvec[0])
        self.areas, kinds = len(space.adjacency), 1 + int(space.entries["kind"].max())
        parts = {name: torch.from_numpy(values).clone() for name, values in space.entries.items()}
        for name in ("actor", "other", "target"):
            parts[name][parts[name] < 0] = self.areas  # an additional area stands for none
        starts = torch.from_numpy(space.list_start)
        actors = [parts["actor"][a:b].unique() for a, b in itertools.pairwise(space.list_start.tolist())]
        alone = [int(found[0]) if len(found) == 1 else self.areas for found in actors]
        # The look at area n for an order of kind k is at index k (areas + 1) + n: target areas first, then other areas.
        row = self.areas + 1
        tables = parts | {
            "list_start": starts[:-1],
            "list_actor": torch.tensor(alone),
            "target_look": parts["kind"] * row + parts["target"],
            "other_look": (kinds + parts["kind"]) * row + parts["other"],
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        sizes = (kinds, row, row, row)
        self.words = nn.ParameterList(orthogonal(size, _WORD, 1.0, generator) for size in sizes)
        self.bias = nn.Parameter(torch.zeros(len(self.kind)))
        gain = math.sqrt(2)
        self.from_area = nn.Parameter(orthogonal(width, width, gain, generator))
        self.from_board = nn.Parameter(orthogonal(width, width, gain, generator))
        self.from_given = nn.Parameter(orthogonal(_WORD, width, gain, generator))
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.to_word = nn.Parameter(orthogonal(width, _WORD, 0.01, generator))
        self.to_look = nn.Parameter(orthogonal(width, 2 * kinds * _LOOK, 0.01, generator))
        self.look = nn.Parameter(orthogonal(width, _LOOK, 1.0, generator))

    def vocabulary(self) -> Tensor:
        """The embeddings ("words") of all orders, [V, d]."""
        kind, actor, other, target = self.words
        total = F.embedding(self.kind, kind) + F.embedding(self.actor, actor)
        return F.relu(total + F.embedding(self.other, other) + F.embedding(self.target, target))

    def entry(self, lists: Tensor, index: Tensor) -> Tensor:
        """Indices of orders in the whole vocabulary; ``lists`` counts from 1."""
        return (self.list_start[lists - 1] + index).clamp(max=len(self.kind) - 1)

    def looks(self, params: OrderParams) -> tuple[Tensor, Tensor]:
        """The keys of the areas and the board's contribution to queries: [N, areas, d'] and [N, d]."""
        return params.areas @ self.look, params.board @ self.from_board + self.query_bias

    def choices(
        self, params: OrderParams, looks: tuple[Tensor, Tensor], words: Tensor,
        row: Tensor, lists: Tensor, mask: Tensor, given: Tensor, acted: Tensor, sizes: _Sizes | None = None,
    ) -> _Choices:  # fmt: skip
        """The legal orders of S slots with their log probabilities.

        Args:
            params: of N rows.
            looks: from :meth:`looks`, of the same rows.
            words: from :meth:`vocabulary`.
            row: the row of each slot, [S].
            lists: 1 + the number of each slot's list, [S].
            mask: legal choices, bool [S, W].
            given: sum of the embeddings of the orders given before, [S, d].
            acted: areas that have acted in those orders, bool [S, areas + 1].
            sizes: how much is legal, if the host knows it.
        """
        areas, board = looks
        count, row_length = len(row), self.areas + 1
        actor = self.list_actor[lists - 1]
        flat = params.areas.flatten(0, 1)
        here = flat.index_select(0, row * self.areas + actor.clamp(max=self.areas - 1))
        here = here * (actor < self.areas).unsqueeze(1)
        hidden = torch.addmm(board.index_select(0, row), here, self.from_area)
        hidden = F.relu(torch.addmm(hidden, given, self.from_given))
        query = hidden @ self.to_word
        look = (hidden @ self.to_look).view(count, self.to_look.shape[1] // _LOOK, _LOOK)  # also works for 0 slots
        look = F.pad(torch.bmm(look, areas.index_select(0, row).transpose(1, 2)), (0, 1)).flatten()

        slot, index = true_places(mask, None if sizes is None else sizes.legal)
        entry = self.entry(lists[slot], index)
        score = (query.index_select(0, slot) * words.index_select(0, entry)).sum(1) + self.bias[entry]
        base = slot * (2 * row_length * (len(self.words[0])))
        score = score + look[base + self.target_look[entry]] + look[base + self.other_look[entry]]
        # An area acts once: a second build there, or a second disbandment of the same unit, is not a valid order.
        again = acted.flatten()[slot * row_length + self.actor[entry]]
        score = score.masked_fill(again, _FORBIDDEN / 2)  # above illegal orders, in case nothing else is left

        counts = mask.sum(1)
        place = torch.arange(len(slot), device=slot.device) - (counts.cumsum(0) - counts)[slot]
        longest = sizes.longest if sizes is not None else int(counts.max()) if count else 1
        place = slot * longest + place
        padded = score.new_full((count * longest,), _FORBIDDEN).index_put((place,), score).view(count, longest)
        numbers = index.new_full((count * longest,), -1).index_put((place,), index).view(count, longest)
        return _Choices(torch.log_softmax(padded, 1), numbers)


class _Sizes(NamedTuple):
    """How much there is to choose from in a slot of all rows: slots to fill, legal orders in all, most in one."""

    slots: int
    legal: int
    longest: int


def _sizes(slots: Tensor, legal: Tensor) -> list[_Sizes]:
    """The sizes of every slot k, in one transfer; of slots [N, K] and legal choices [N, K, W]."""
    acts = slots != 0
    count = (legal & acts[..., None]).sum(2)
    table = torch.stack([acts.sum(0), count.sum(0), count.amax(0).clamp(min=1)], 1)
    return [_Sizes(*row) for row in table.tolist()]


def _sizes_in_all(slots: Tensor, legal: Tensor) -> _Sizes:
    """The sizes of all slots together."""
    acts = slots != 0
    count = (legal & acts[..., None]).sum(2)
    return _Sizes(*torch.stack([acts.sum(), count.sum(), count.max().clamp(min=1)]).tolist())


class OrderDistribution:
    """A distribution over orders for K slots, autoregressive; params are :class:`OrderParams`, actions int64 [N, K].

    Slots whose list is 0 have nothing to order: they take their first legal choice with probability 1.

    Args:
        decoder: of the network.
    """

    gaussian = False

    def __init__(self, decoder: OrderDecoder) -> None:
        self.decoder = decoder
        self.size = decoder.slots * decoder.width

    def sample(
        self, params: OrderParams, mask: Tensor | None, generator: torch.Generator, temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Sampled orders [N, K], slot by slot, by the Gumbel trick.

        Temperature and ``top_p`` sharpen each slot's choice given the orders before
        (:func:`~mlbits.agents.maths.action_distributions.sharpened`).
        """

        def drawn(choices: _Choices) -> Tensor:
            log_prob = sharpened(choices.log_prob, temperature, top_p)
            noise = torch.empty_like(log_prob).exponential_(generator=generator).log_()
            return torch.where(choices.choice >= 0, log_prob - noise, 2 * _FORBIDDEN).argmax(1)

        return self._give(params, mask, drawn)

    def mode(self, params: OrderParams, mask: Tensor | None) -> Tensor:
        """Orders [N, K], the most probable slot by slot (which need not be the most probable set of orders)."""
        return self._give(params, mask, lambda choices: choices.log_prob.argmax(1))

    def _give(self, params: OrderParams, mask: Tensor | None, choose: Any) -> Tensor:
        decoder, slots = self.decoder, params.slots
        legal = self._legal(slots, mask)
        action = torch.zeros_like(slots)
        sizes = None if slots.is_cpu else _sizes(slots, legal)
        shut = (slots == 0) & ~legal[:, :, 0]
        if sizes is not None or bool(shut.any()):
            action = torch.where(shut, legal.to(torch.uint8).argmax(2), action)
        words, looks = decoder.vocabulary(), decoder.looks(params)
        given = words.new_zeros(len(slots), words.shape[1])
        acted = torch.zeros(len(slots), decoder.areas + 1, dtype=torch.bool, device=slots.device)
        for k in range(decoder.slots):
            row = true_places(slots[:, k] != 0, None if sizes is None else sizes[k].slots)[0]
            if len(row) == 0:
                continue
            lists = slots[row, k]
            now = (params, looks, words, row, lists, legal[row, k], given[row], acted[row])
            choices = decoder.choices(*now, sizes=None if sizes is None else sizes[k])
            index = choices.choice.gather(1, choose(choices).unsqueeze(1)).squeeze(1)
            action[row, k] = index
            entry = decoder.entry(lists, index)
            given[row] += words[entry]
            acted[row, decoder.actor[entry]] = True
            acted[:, -1] = False
        return action

    def log_prob(self, params: OrderParams, mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probabilities of the actions, [N]."""
        row, _, chosen, _, _ = self._taught(params, mask, action)
        return chosen.new_zeros(len(params.slots)).index_add(0, row, chosen)

    def entropy(self, params: OrderParams, mask: Tensor | None) -> Tensor:
        """Not available: the estimate needs the sampled orders.

        Raises:
            AgentError: always.
        """
        raise AgentError(
            "entropy: got the order network, whose entropy has no closed form; wanted log_prob_and_entropy"
        )

    def log_prob_and_entropy(self, params: OrderParams, mask: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log probability and entropy, both [N], in one pass: each slot given the action's orders before it.

        The entropy is an estimate whose value and gradient are unbiased for an ``action`` sampled from the policy (see
        the module's docstring); its gradient is not the derivative of its value for the given action.
        """
        row, k, chosen, log_p, alone = self._taught(params, mask, action)
        slots = params.slots
        entropy = -(log_p.exp() * log_p).sum(1)
        if torch.is_grad_enabled():
            with torch.no_grad():
                first = alone().log_prob
                more = entropy + (first.exp() * first).sum(1)  # entropy minus the baseline, that without orders before
                table = torch.zeros_like(slots, dtype=log_p.dtype).index_put((row, k), more)
                after = (table.sum(1, keepdim=True) - table.cumsum(1))[row, k]
            entropy = entropy + (chosen - chosen.detach()) * after  # score-function term: adds 0 to the value
        none = log_p.new_zeros(len(slots))
        return none.index_add(0, row, chosen), none.index_add(0, row, entropy)

    def _taught(
        self, params: OrderParams, mask: Tensor | None, action: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Callable[[], _Choices]]:
        """For S slots with something to order, each given the action's orders before it.

        Returns:
            Their rows and slots [S], the log probabilities of the action's orders [S] and of all legal ones [S, L], and
            a function for the choices if no orders were given before.
        """
        decoder, slots = self.decoder, params.slots
        legal = self._legal(slots, mask)
        sizes = None if slots.is_cpu else _sizes_in_all(slots, legal)
        row, k = true_places(slots != 0, None if sizes is None else sizes.slots)
        lists, index = slots[row, k], action[row, k]
        entry = decoder.entry(lists, index)
        words = decoder.vocabulary()
        spread = words.new_zeros(*slots.shape, words.shape[1]).index_put((row, k), words.index_select(0, entry))
        given = (spread.cumsum(1) - spread)[row, k]
        with torch.no_grad():
            acts = torch.zeros(*slots.shape, decoder.areas + 1, dtype=torch.uint8, device=slots.device)
            acts[row, k, decoder.actor[entry]] = 1
            acts[..., -1] = 0
            acted = (acts.cumsum(1) > acts)[row, k]
        legal, looks = legal[row, k], decoder.looks(params)
        choices = decoder.choices(params, looks, words, row, lists, legal, given, acted, sizes)
        chosen = torch.where(choices.choice == index.unsqueeze(1), choices.log_prob, 0.0).sum(1)

        def alone() -> _Choices:
            nothing = (torch.zeros_like(given), torch.zeros_like(acted))
            return decoder.choices(params, looks, words, row, lists, legal, *nothing, sizes)

        return row, k, chosen, choices.log_prob, alone

    def _legal(self, slots: Tensor, mask: Tensor | None) -> Tensor:
        """Legal choices, bool [N, K, W]."""
        if mask is None:
            return slots.new_ones((), dtype=torch.bool).expand(*slots.shape, self.decoder.width)
        return mask.view(*slots.shape, self.decoder.width)

    def kl(self, old: OrderParams, new: OrderParams, mask: Tensor | None) -> Tensor:
        """Not available: there are too many sets of orders to sum over.

        Raises:
            AgentError: always.
        """
        raise AgentError("kl: got the order network, whose KL has no closed form; wanted network='mlp'")

    def fisher(self, params: OrderParams, mask: Tensor | None, vector: Tensor) -> Tensor:
        """Not available, as :meth:`kl` is not.

        Raises:
            AgentError: always.
        """
        raise AgentError("fisher: got the order network, whose KL has no closed form; wanted network='mlp'")

    def played(self, action: Tensor) -> Tensor:
        """The action in the form that the environment takes: unchanged."""
        return action


class OrderNetwork(nn.Module):
    """A policy and a value function over one encoder of the board.

    Args:
        observation_space: with "areas", "status" and "slots". Columns of "areas" with an upper bound above 1 hold
            integers, and get an embedding table each.
        space: the orders.
        hidden: widths of the graph convolutions; the first is the width of the input layer too.
        generator: the source of initial weights.
    """

    mean_of_near: Tensor
    scale: Tensor

    def __init__(
        self, observation_space: spaces.Dict, space: OrderSpace, hidden: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        areas, status = observation_space["areas"], observation_space["status"]
        assert isinstance(areas, spaces.Box) and isinstance(status, spaces.Box)
        near = torch.from_numpy(space.adjacency).float()
        self.register_buffer("mean_of_near", near / near.sum(1, keepdim=True).clamp(min=1), persistent=False)
        high = torch.from_numpy(areas.high).float().amax(0).clamp(min=1)
        self.register_buffer("scale", 1 / high, persistent=False)
        self.numbers = (high > 1).nonzero().squeeze(1).tolist()
        first, gain = hidden[0], math.sqrt(2)
        self.from_features = nn.Parameter(orthogonal(areas.shape[1], first, gain, generator))
        self.from_status = nn.Parameter(orthogonal(status.shape[0], first, gain, generator))
        self.place = nn.Parameter(orthogonal(areas.shape[0], first, 1.0, generator))
        tables = [orthogonal(1 + int(high[column]), first, 1.0, generator) for column in self.numbers]
        self.tables = nn.ParameterList(table.index_fill(0, torch.tensor(0), 0.0) for table in tables)
        wide = [first, *hidden]
        self.own = nn.ParameterList(orthogonal(a, b, 1.0, generator) for a, b in itertools.pairwise(wide))
        self.near = nn.ParameterList(orthogonal(a, b, 1.0, generator) for a, b in itertools.pairwise(wide))
        self.all = nn.ParameterList(orthogonal(a, b, 1.0, generator) for a, b in itertools.pairwise(wide))
        self.biases = nn.ParameterList(torch.zeros(width) for width in hidden)
        width = hidden[-1]
        self.pool = nn.Parameter(orthogonal(width, width, gain, generator))
        self.pool_status = nn.Parameter(orthogonal(status.shape[0], width, gain, generator))
        self.pool_bias = nn.Parameter(torch.zeros(width))
        self.critic = _ValueHead(width, generator)
        self.decoder = OrderDecoder(space, width, generator)

    def policy(self, obs: Any) -> OrderParams:
        """The decoder's input for N rows."""
        nodes, board = self._encode(obs)
        return OrderParams(nodes.transpose(0, 1).contiguous(), board, obs["slots"].long())

    def value(self, obs: Any) -> Tensor:
        """Values [N]."""
        value: Tensor = self.critic(self._encode(obs)[1])
        return value

    def forward(self, obs: Any) -> tuple[OrderParams, Tensor]:
        """Decoder input and values, from one pass of the encoder."""
        nodes, board = self._encode(obs)
        return OrderParams(nodes.transpose(0, 1).contiguous(), board, obs["slots"].long()), self.critic(board)

    def _encode(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Encodings of the areas [areas, N, d] (so that one product sums over neighbours) and of the board [N, d]."""
        areas, status = obs["areas"].transpose(0, 1).contiguous(), obs["status"].to(self.place.dtype)
        count, rows = areas.shape[:2]
        nodes = (areas.to(self.place.dtype) * self.scale) @ self.from_features + self.place.unsqueeze(1)
        nodes = nodes + status @ self.from_status
        for column, table in zip(self.numbers, self.tables, strict=True):
            nodes = nodes + F.embedding(areas[:, :, column].long(), table, padding_idx=0)
        nodes = F.relu(nodes)
        for own, near, everywhere, bias in zip(self.own, self.near, self.all, self.biases, strict=True):
            beside = (self.mean_of_near @ (nodes @ near).view(count, -1)).view(count, rows, -1)
            change = torch.baddbmm(beside, nodes, own.expand(count, -1, -1)) + (nodes.mean(0) @ everywhere + bias)
            nodes = F.relu(nodes + change if own.shape[0] == own.shape[1] else change)
        board = F.relu(torch.addmm(self.pool_bias + nodes.mean(0) @ self.pool, status, self.pool_status))
        return nodes, board


class _ValueHead(nn.Module):
    """From encodings of boards [N, d] to values [N]."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Parameter(orthogonal(width, width, math.sqrt(2), generator))
        self.hidden_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Parameter(orthogonal(width, 1, 1.0, generator))
        self.out_bias = nn.Parameter(torch.zeros(1))

    def forward(self, board: Tensor) -> Tensor:
        hidden = F.relu(torch.addmm(self.hidden_bias, board, self.hidden))
        return torch.addmm(self.out_bias, hidden, self.out).squeeze(1)
