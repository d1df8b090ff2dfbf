"""``mlbits reproduce openspiel``: NashConv, alpha-rank and Elo beside OpenSpiel's, on the same inputs.

Lanctot et al. 2019, "OpenSpiel: A framework for reinforcement learning in games" (arXiv 1908.09453). Both libraries
get the same payoffs, games and policies, and their results are compared number by number; OpenSpiel comes with the
extra ``peers``. Where the two differ by intent (:mod:`mlbits.evals.game_theory.alpha_rank`,
:mod:`mlbits.evals.game_theory.elo`), ours uses OpenSpiel's options.

A mixture of policies is only compared where OpenSpiel's information states recall all that a player did: those of
Goofspiel forget the order in which it bid, so that with four cards and open bids its aggregate of policies differs from
the mixture (tests/evals/exploitability/test_agent_exploitability.py computes that one by beliefs).

Example:
    pip install -c constraints.txt -e ".[peers]"
    mlbits reproduce openspiel
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.exact.normal_form import payoff_tensor
from mlbits.envs.registry import make_game
from mlbits.evals.exploitability.agent_exploitability import exact_gains, sequence_form
from mlbits.evals.game_theory.alpha_rank import alpha_rank, alpha_rank_symmetric
from mlbits.evals.game_theory.elo import elo_ratings, points
from mlbits.evals.game_theory.nash_conv import nash_conv
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table

GOOFSPIEL, BLOTTO = "mlbits/Goofspiel-v0", "mlbits/Blotto-v0"
_TOLERANCE, _ELO_TOLERANCE = 1e-9, 1e-5  # OpenSpiel's Elo climbs in small steps and stops short of the maximum
_WEIGHTS = ((0.25, 0.75), (0.6, 0.4))
_SHOWN = 4


class Case(NamedTuple):
    """One comparison.

    Attributes:
        name: what is compared.
        ours: our numbers.
        theirs: computes OpenSpiel's numbers.
        tolerance: the largest difference that counts as equal.
    """

    name: str
    ours: NDArray[np.float64]
    theirs: Callable[[], NDArray[np.float64]]
    tolerance: float = _TOLERANCE


class Bidder:
    """A policy for Goofspiel: bids with weights that depend on the card, the prize, the seat and the number of cards.

    Args:
        number: number of the policy, which changes its weights.
        seat: its seat.
        settings: settings of the game.
    """

    def __init__(self, number: int, seat: int, settings: Mapping[str, Any]) -> None:
        self.cards, seats = int(settings["cards"]), int(settings.get("seats", 2))
        self.shift = number + seat
        self._prizes = (self.cards if settings.get("observation") == "winners" else seats * self.cards) + seats

    def weights(self, card: Any, prize: Any, held: Any) -> Any:
        """Weight of bidding a card, 1 to n, for a prize, 1 to n, while holding ``held`` cards."""
        return 1 + card * (prize + self.shift) * (held + 1) % 5

    def action_probabilities(self, obs: Tensor, legal_mask: Tensor, *, greedy: bool = False) -> Tensor:
        """Probabilities of bidding each card, float64 [N, n]."""
        prize = obs[:, self._prizes : self._prizes + self.cards].argmax(-1, keepdim=True) + 1
        card = torch.arange(1, self.cards + 1)
        weight = self.weights(card, prize, legal_mask.sum(-1, keepdim=True)) * legal_mask.double()
        return weight / weight.sum(-1, keepdim=True)


def reproduce(quick: bool = False) -> dict[str, Any]:
    """Compare the two libraries.

    Args:
        quick: leave out the larger games.

    Returns:
        "rows" (name, ours and theirs, both lists, difference, tolerance), "version" of OpenSpiel, and "met": whether
        no difference is above its tolerance.

    Raises:
        ReproductionError: if OpenSpiel is not installed.
    """
    if importlib.util.find_spec("pyspiel") is None:
        raise ReproductionError('openspiel: OpenSpiel is not installed; wanted pip install "mlbits[peers]"')
    rows = []
    for case in cases(quick):
        theirs = np.asarray(case.theirs(), float).reshape(-1)
        difference = float(np.abs(case.ours - theirs).max())
        rows.append(
            {
                "name": case.name, "ours": case.ours.tolist(), "theirs": theirs.tolist(), "difference": difference,
                "tolerance": case.tolerance,
            }
        )  # fmt: skip
    version = importlib.metadata.version("open_spiel")
    print_table(
        f"NashConv, alpha-rank and Elo beside OpenSpiel {version}", ("", "ours", "OpenSpiel", "difference"),
        [(row["name"], _shown(row["ours"]), _shown(row["theirs"]), f"{row['difference']:.1g}") for row in rows],
        width=150,
    )  # fmt: skip
    return {"rows": rows, "version": version, "met": all(row["difference"] <= row["tolerance"] for row in rows)}


def cases(quick: bool = False) -> list[Case]:
    """All comparisons; ``quick`` leaves out the larger games."""
    return [*_one_step(quick), *_goofspiel(quick), *_ranks(), *_elo()]


def _one_step(quick: bool) -> list[Case]:
    """Games in normal form: random payoffs and mixtures, and Blotto with uniform play."""
    rng = np.random.default_rng(0)
    found = []
    for shape in ((4, 3), (2, 3, 2)):
        payoffs = rng.normal(size=(len(shape), *shape)).round(2)
        mixtures = [rng.dirichlet(np.ones(size)) for size in shape]
        ours = np.array([nash_conv(payoffs, mixtures)])
        name = f"NashConv of mixtures, {' x '.join(map(str, shape))} random payoffs"
        found.append(Case(name, ours, lambda p=payoffs, m=mixtures: _tensor_game(p, m)))  # type: ignore[misc]
    coins = 5 if quick else 10
    tensor = payoff_tensor(make_game(BLOTTO, coins=coins, fields=3))
    uniform = [np.full(size, 1 / size) for size in tensor.shape[1:]]
    ours, name = np.array([nash_conv(tensor, uniform)]), f"blotto(coins={coins},fields=3)"
    return [*found, Case(f"NashConv of uniform play, {name}", ours, lambda: _their_nash_conv(name))]


def _goofspiel(quick: bool) -> list[Case]:
    """Games of several steps, with a mixed policy and with mixtures of two."""
    games: list[tuple[str, dict[str, Any], bool]] = [
        ("goofspiel(num_cards=3)", {"cards": 3}, True),
        (
            "goofspiel(num_cards=4,imp_info=True,points_order=descending)",
            {"cards": 4, "observation": "winners", "prizes": "descending"},
            True,
        ),
        (
            "goofspiel(num_cards=3,players=3,points_order=ascending)",
            {"cards": 3, "seats": 3, "prizes": "ascending"},
            False,
        ),
        ("goofspiel(num_cards=4)", {"cards": 4}, False),
    ]
    found = []
    for name, settings, mixed in games[: -1 if quick else None]:
        seats, form = settings.get("seats", 2), sequence_form(GOOFSPIEL, settings)
        bidders: list[list[Any]] = [[Bidder(number, seat, settings) for number in (0, 1)] for seat in range(seats)]
        ours = np.array([exact_gains([pair[0] for pair in bidders], form).nash_conv])
        found.append(Case(f"NashConv of a policy, {name}", ours, lambda n=name: _their_nash_conv(n, (0,))))  # type: ignore[misc]
        if mixed:
            mixtures = [list(zip(pair, weights, strict=True)) for pair, weights in zip(bidders, _WEIGHTS, strict=True)]
            ours = np.array([exact_gains(mixtures, form).nash_conv])
            found.append(Case(f"NashConv of a mixture, {name}", ours, lambda n=name: _their_nash_conv(n, (0, 1))))  # type: ignore[misc]
    return found


def _ranks() -> list[Case]:
    """Alpha-rank with one population and with one per seat, at finite alpha and in the limit."""
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(4, 4)).round(2), rng.normal(size=(2, 3, 2)).round(2)

    def theirs(tables: Any, **settings: Any) -> NDArray[np.float64]:
        found = importlib.import_module("open_spiel.python.egt.alpharank").compute(list(tables), **settings)[2]
        return np.asarray(found, float)

    profiles, limit = alpha_rank(two, alpha=2.0, population=20), alpha_rank(two, noise=0.01)
    return [
        Case(
            "alpha-rank, one population of 4 strategies, alpha 2",
            alpha_rank_symmetric(one, alpha=2.0, population=20),
            lambda: theirs([one], m=20, alpha=2.0, use_local_selection_model=False),
        ),
        Case("alpha-rank, 3 x 2 profiles, alpha 2", profiles.reshape(-1), lambda: theirs(two, m=20, alpha=2.0)),
        Case(
            "alpha-rank, 3 x 2 profiles, alpha infinite",
            limit.reshape(-1),
            lambda: theirs(two, use_inf_alpha=True, inf_alpha_eps=0.01),
        ),
    ]


def _elo() -> list[Case]:
    """Elo of a table of wins and draws, the last player's rating 0."""
    rng = np.random.default_rng(2)
    wins = rng.integers(1, 40, (5, 5)) * (1 - np.eye(5, dtype=int))
    draws = np.triu(rng.integers(0, 10, (5, 5)), 1)
    draws = draws + draws.T

    def theirs() -> NDArray[np.float64]:
        elo = importlib.import_module("open_spiel.python.algorithms.elo")
        settings = {"smoothing_factor": 0.0, "max_iterations": 100_000, "convergence_delta": 1e-13}
        found = np.asarray(elo.compute_ratings_from_matrices(wins, draws, **settings), float)
        return found - found[-1]

    ours = elo_ratings(points(wins, draws), prior=0, anchor=4)
    return [Case("Elo of 5 players, wins and draws", ours, theirs, _ELO_TOLERANCE)]


def _tensor_game(payoffs: NDArray[np.float64], mixtures: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """OpenSpiel's NashConv of mixtures in a normal-form game."""
    spiel, policies = importlib.import_module("pyspiel"), importlib.import_module("open_spiel.python.policy")
    game = spiel.convert_to_turn_based(spiel.create_tensor_game(list(payoffs)))
    made = policies.TabularPolicy(game)
    for row, state in enumerate(made.states):
        mixture = mixtures[state.current_player()]
        made.action_probability_array[row, : len(mixture)] = mixture
    return _measured(game, made)


def _their_nash_conv(name: str, numbers: tuple[int, ...] = ()) -> NDArray[np.float64]:
    """OpenSpiel's NashConv of uniform play, of one :class:`Bidder`, or of the mixture of several."""
    spiel, policies = importlib.import_module("pyspiel"), importlib.import_module("open_spiel.python.policy")
    game = spiel.convert_to_turn_based(spiel.load_game(name))
    if not numbers:
        return _measured(game, policies.UniformRandomPolicy(game))
    made = [_their_bidder(policies.TabularPolicy(game), game, number) for number in numbers]
    if len(made) == 1:
        return _measured(game, made[0])
    aggregator = importlib.import_module("open_spiel.python.algorithms.policy_aggregator").PolicyAggregator(game)
    seats = list(range(game.num_players()))
    return _measured(game, aggregator.aggregate(seats, [made for _ in seats], [list(weights) for weights in _WEIGHTS]))


def _their_bidder(table: Any, game: Any, number: int) -> Any:
    """A TabularPolicy of OpenSpiel's, filled with the probabilities of :class:`Bidder`."""
    cards = game.num_distinct_actions()
    for key, row in table.state_lookup.items():
        state = table.states[row]
        said = re.search(r"Point card sequence: ([\d ]+)", key)
        assert said is not None
        held = state.legal_actions()
        bidder = Bidder(number, state.current_player(), {"cards": cards})
        weights = np.zeros(cards)
        for card in held:
            weights[card] = bidder.weights(card + 1, int(said[1].split()[-1]), len(held))
        table.action_probability_array[row] = weights / weights.sum()
    return table


def _measured(game: Any, policy: Any) -> NDArray[np.float64]:
    measure = importlib.import_module("open_spiel.python.algorithms.exploitability")
    return np.array([float(measure.nash_conv(game, policy))])


def _shown(values: list[float]) -> str:
    more = ", ..." if len(values) > _SHOWN else ""
    return ", ".join(f"{value:.6g}" for value in values[:_SHOWN]) + more
