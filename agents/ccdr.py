"""Similarity-based cooperation: CCDR pretraining and alternating best response, for networks that play
:class:`~mlbits.envs.policy_similarity.SimilarityGame` (Oesterheld et al., arXiv 2211.14468).

- **CCDR** (cooperate with copies, defect against random networks): each network by itself minimises its loss against a
  copy of itself, with the gradient through both copies, plus its loss against random networks, drawn at every step.
- **ABR** (alternating best response, the paper's algorithm 1): the players take turns; one takes gradient steps on its
  own loss while the other is fixed. The gradient flows through the difference, and so through the other's observation
  and answer. ``cut_gradient`` treats the difference as a constant instead: then only defecting pays.
- **LOLA** (Foerster et al., arXiv 1709.04326) as an option: with a ``lookahead`` above 0, each step's loss is that
  after the other has taken one gradient step of that size on its own loss, and is differentiated through that step.

Networks are those of the paper: hidden layers of 100, 50 and 50 units with biases, LeakyReLU. Its learning rates, batch
sizes and numbers of steps are unknown to us; ours are in :class:`SimilarityLearningConfig`. Weights are initialised
like torch's linear layers, uniform within 1 / sqrt(inputs).

S pairs learn at once, their weights stacked [S, in, out]. Each pair has its own generators, and Adam works elementwise,
so a pair's results do not depend on the others. (Bit for bit on the machines tested; with LOLA up to rounding, which
its steps amplify.)

Made for this one game, whose seats hold networks; it is not an agent of ``mlbits train``.

Example:
    >>> from mlbits.agents.ccdr import SimilarityLearningConfig, alternate, make_pairs, pretrain
    >>> from mlbits.envs.policy_similarity import SimilarityGame
    >>> game = SimilarityGame()
    >>> config = SimilarityLearningConfig(hidden=(8,), pretraining_steps=20, turns=2, steps_per_turn=5, batch=32)
    >>> pairs = make_pairs(game, config, seeds=[0, 1])
    >>> pretrain(game, pairs, config)
    >>> for turn in alternate(game, pairs, config):
    ...     loss = pairs.evaluate(game).loss.mean((1, 2))  # of each pair
    >>> turn, loss.shape
    (2, torch.Size([2]))
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.agent import AgentError, network_generator
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.policy_similarity import Outcome, SimilarityGame

NEGATIVE_SLOPE = 0.01  # of LeakyReLU below 0, torch's default
EVALUATION_PLAYS, EVALUATION_SEED = 1024, 987_654_321
_PARTS = 3  # generators per pair: one for each player, and one for their meetings


@configuration(AgentError)
class SimilarityLearningConfig:
    """Settings of CCDR and alternating best response (ABR). All but ``hidden`` are our choice."""

    hidden: tuple[int, ...] = setting((100, 50, 50), "widths of the hidden layers, those of the paper", low=1)
    difference_factor: float = setting(
        10.0, "factor on the difference before the first layer, which hardly sees it otherwise", low=1e-6, high=1e6
    )
    learning_rate: float = setting(1e-3, "learning rate of Adam", low=0, high=10)
    batch: int = setting(128, "plays, and test pairs, per gradient step", low=1, high=1e6)
    pretraining_steps: int = setting(1500, "gradient steps of CCDR; 0 keeps the initial networks", low=0, high=1e9)
    turns: int = setting(60, "turns of ABR; in each, one player learns, then the other", low=0, high=1e9)
    steps_per_turn: int = setting(50, "gradient steps of each player in a turn", low=0, high=1e9)
    cut_gradient: bool = setting(False, "treat the difference as a constant in ABR")
    lookahead: float = setting(
        0.0, "size of the opponent's gradient step that LOLA differentiates through; 0 is plain ABR", low=0, high=1e6
    )

    def check(self) -> None:
        """Refuse a lookahead through a gradient that is cut."""
        if self.cut_gradient and self.lookahead > 0:
            raise AgentError(f"lookahead: got {self.lookahead} with cut_gradient; wanted 0, or the gradient left whole")


class SimilarityNetwork:
    """A policy, or S of them at once: (difference [..., N], context [..., N, n]) -> [..., N, m].

    Args:
        parameters: weight [in, out] and bias [1, out] of each layer in order, with a leading axis [S] for S policies.
        difference_factor: see :class:`SimilarityLearningConfig`.
    """

    def __init__(self, parameters: Sequence[Tensor], difference_factor: float) -> None:
        self.parameters, self.difference_factor = list(parameters), difference_factor

    def __call__(self, difference: Tensor, context: Tensor) -> Tensor:
        """The answers."""
        hidden = torch.cat([self.difference_factor * difference.unsqueeze(-1), context], -1)
        layers = list(zip(self.parameters[::2], self.parameters[1::2], strict=True))
        for weight, bias in layers[:-1]:
            hidden = F.leaky_relu(_affine(bias, hidden, weight), NEGATIVE_SLOPE)
        return _affine(layers[-1][1], hidden, layers[-1][0])

    def frozen(self) -> SimilarityNetwork:
        """The same weights without gradients."""
        return SimilarityNetwork([p.detach() for p in self.parameters], self.difference_factor)

    def member(self, index: int) -> SimilarityNetwork:
        """One of S policies, frozen."""
        return SimilarityNetwork([p.detach()[index] for p in self.parameters], self.difference_factor)

    def part(self, first: int, last: int) -> SimilarityNetwork:
        """A copy of some of S policies, to train separately."""
        return SimilarityNetwork([p.detach()[first:last].clone() for p in self.parameters], self.difference_factor)


def _affine(bias: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    if weight.dim() == 3:
        return torch.baddbmm(bias, hidden, weight)
    return hidden @ weight + bias


class SimilarityPairs:
    """S pairs of networks.

    Attributes:
        players: the networks of seat 0 and of seat 1, S in each.
        generators: for each pair: seat 0's own, seat 1's, and one for their meetings.
    """

    def __init__(self, players: Sequence[SimilarityNetwork], generators: list[list[torch.Generator]]) -> None:
        self.players, self.generators = list(players), generators

    @torch.no_grad()
    def evaluate(self, game: SimilarityGame) -> Outcome:
        """Let each pair play, with the same draws at every call; loss and the other results are [S, N, 2]."""
        draws = game.draw(EVALUATION_PLAYS, [network_generator(EVALUATION_SEED) for _ in self.generators])
        return game.play([player.frozen() for player in self.players], draws)

    def copy(self, seats: Sequence[int] = (0, 1)) -> SimilarityPairs:
        """The networks of two seats and the generators' states, to train separately.

        Args:
            seats: seats whose networks are copied; (0, 0) pairs each network of seat 0 with its literal copy.
        """
        generators = [[one.clone_state() for one in pair] for pair in self.generators]
        return SimilarityPairs([self.players[seat].part(0, len(generators)) for seat in seats], generators)


def make_pairs(game: SimilarityGame, config: SimilarityLearningConfig, seeds: Sequence[int]) -> SimilarityPairs:
    """Networks with random weights.

    Args:
        game: gives the sizes of contexts and answers.
        config: gives the hidden layers.
        seeds: one seed per pair, 0 or more; equal seeds give equal pairs.

    Raises:
        AgentError: if there are no seeds, or one is negative.
    """
    if not seeds or any(seed < 0 for seed in seeds):
        raise AgentError(f"seeds: got {list(seeds)}; wanted one or more numbers from 0 on")
    generators = [[network_generator(_PARTS * seed + part) for part in range(_PARTS)] for seed in seeds]
    players = [_random_networks(game, config, [pair[seat] for pair in generators]) for seat in range(2)]
    return SimilarityPairs(players, generators)


def _random_networks(
    game: SimilarityGame, config: SimilarityLearningConfig, generators: Sequence[torch.Generator]
) -> SimilarityNetwork:
    """A network a generator."""
    widths = [1 + game.context_size, *config.hidden, game.answer_size]
    shapes = list(itertools.pairwise(widths))
    sizes = [(rows + 1) * columns for rows, columns in shapes]
    drawn = torch.stack([torch.rand(sum(sizes), generator=generator) for generator in generators]).mul_(2).sub_(1)
    parameters = []
    for (rows, columns), part in zip(shapes, drawn.split(sizes, 1), strict=True):
        layer = (part * rows**-0.5).view(len(part), rows + 1, columns)
        parameters += [layer[:, :rows].contiguous(), layer[:, rows:].contiguous()]
    return SimilarityNetwork(parameters, config.difference_factor)


def _learner(network: SimilarityNetwork, learning_rate: float) -> tuple[SimilarityNetwork, FlatAdam]:
    """The network with trainable weights, and their optimiser."""
    parameters = [nn.Parameter(p) for p in network.parameters]
    # Adam rounds the last few entries of a vector differently from the rest; these padding entries belong to no pair.
    padding = nn.Parameter(torch.zeros(64 - sum(p.numel() for p in parameters) % 64))
    optimizer = FlatAdam([*parameters, padding], learning_rate, float("inf"), eps=1e-8)
    return SimilarityNetwork(parameters, network.difference_factor), optimizer


def pretrain(game: SimilarityGame, pairs: SimilarityPairs, config: SimilarityLearningConfig) -> None:
    """CCDR: every network of the pairs learns by itself, for ``config.pretraining_steps`` steps."""
    size = len(pairs.generators)
    stacked = [torch.cat(both) for both in zip(*(player.parameters for player in pairs.players), strict=True)]
    network, optimizer = _learner(SimilarityNetwork(stacked, config.difference_factor), config.learning_rate)
    own = [pair[seat] for seat in range(2) for pair in pairs.generators]
    for _ in range(config.pretraining_steps):
        draws = game.draw(config.batch, own)
        strangers = _random_networks(game, config, own)
        with_copies = game.play([network, network], draws).loss.mean(-1)  # both seats: gradient through both
        with_strangers = game.play([network, strangers], draws).loss[..., 0]
        optimizer.zero_grad()
        (with_copies + with_strangers).mean(-1).sum().backward()
        optimizer.step()
    pairs.players = [network.part(0, size), network.part(size, 2 * size)]


def alternate(game: SimilarityGame, pairs: SimilarityPairs, config: SimilarityLearningConfig) -> Iterator[int]:
    """Alternating best response, or LOLA: both players of each pair learn in turn.

    Yields:
        The number of each finished turn, from 1 to ``config.turns``; ``pairs`` then holds the networks after it.
    """
    learners = [_learner(player, config.learning_rate) for player in pairs.players]
    pairs.players = [network for network, _ in learners]
    generators = [pair[-1] for pair in pairs.generators]
    for turn in range(1, config.turns + 1):
        for seat in range(2):
            for _ in range(config.steps_per_turn):
                _step(game, [network for network, _ in learners], seat, generators, config, learners[seat][1])
        yield turn


def _step(
    game: SimilarityGame,
    players: list[SimilarityNetwork],
    seat: int,
    generators: list[torch.Generator],
    config: SimilarityLearningConfig,
    optimizer: FlatAdam,
) -> None:
    """One gradient step of a seat's networks on their own loss."""
    draws = game.draw(config.batch, generators)
    met = list(players)
    met[1 - seat] = players[1 - seat].frozen()
    if config.lookahead > 0:
        other = SimilarityNetwork([p.requires_grad_() for p in met[1 - seat].parameters], config.difference_factor)
        met[1 - seat] = other
        loss = game.play(met, draws).loss[..., 1 - seat].mean(-1).sum()
        gradients = torch.autograd.grad(loss, other.parameters, create_graph=True)
        moved = [p.detach() - config.lookahead * g for p, g in zip(other.parameters, gradients, strict=True)]
        met[1 - seat] = SimilarityNetwork(moved, config.difference_factor)
    own = game.play(met, draws, cut_gradient=config.cut_gradient).loss[..., seat]
    optimizer.zero_grad()
    own.mean(-1).sum().backward()
    optimizer.step()
