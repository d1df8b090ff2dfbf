"""The game between policies: losses by hand, the difference and its gradient, noise, populations, bad input."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mlbits.envs.core.errors import GameError
from mlbits.envs.policy_similarity import SimilarityGame


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def game():
    return SimilarityGame(gain=5.0)


def cooperator(game):
    return lambda seen, context: game.cooperate(context)


def defector(game):
    return lambda seen, context: game.defect(context)


class Between(nn.Module):
    """Answers between f_D and f_C; with a ``slope``, cooperation falls with the observed difference."""

    def __init__(self, game, cooperation, slope=0.0):
        super().__init__()
        self.game, self.slope, self.cooperation = game, slope, nn.Parameter(torch.tensor(cooperation))

    def forward(self, seen, context):
        weight = (self.cooperation - self.slope * seen).unsqueeze(-1)
        return weight * self.game.cooperate(context) + (1 - weight) * self.game.defect(context)


@pytest.mark.parametrize("gain", [1.5, 5.0, 20.0])
@pytest.mark.parametrize("sizes", [(3, 3), (1, 1), (7, 2)])
def test_exact_play_has_the_losses_of_the_dilemma(gain, sizes):
    game = SimilarityGame(gain, context_size=sizes[0], answer_size=sizes[1], seed=3)
    draws = game.draw(50_000, generator(1))
    nice, nasty = cooperator(game), defector(game)
    table = {
        (nice, cooperator(game)): (1, 1),
        (nasty, defector(game)): (gain, gain),
        (nice, nasty): (gain + 1, 0),
        (nasty, nice): (0, gain + 1),
    }
    for seats, wanted in table.items():
        assert game.play(seats, draws).loss.mean(0).tolist() == pytest.approx(wanted, rel=0.03, abs=1e-6)


def test_losses_by_hand(game):
    """On one context: each part is a distance, and cooperation is where an answer lies between the two."""
    draws = game.draw(1, generator())
    good, bad = game.cooperate(draws.context)[0], game.defect(draws.context)[0]
    apart = math.dist(good.tolist(), bad.tolist())
    outcome = game.play((Between(game, 0.25), Between(game, 1.0)), draws)
    assert outcome.loss[0].tolist() == pytest.approx([0.25 * apart, apart + 5 * 0.75 * apart], rel=1e-5)
    assert outcome.cooperation[0].tolist() == pytest.approx([0.25, 1.0], rel=1e-5)
    elsewhere = game.play((lambda seen, x: game.defect(x) + 3 * (game.defect(x) - game.cooperate(x)),) * 2, draws)
    assert elsewhere.loss[0].tolist() == pytest.approx([(3 + 5 * 4) * apart] * 2, rel=1e-5)
    assert elsewhere.cooperation[0].tolist() == pytest.approx([3 / 7] * 2, rel=1e-5)


def test_a_policy_and_its_copy_do_not_differ(game):
    draws = game.draw(64, generator())
    one, copy, other = Between(game, 0.5, 1.0), Between(game, 0.5, 1.0), Between(game, 0.6, 1.0)
    assert game.difference((one, one), draws) == 0
    assert game.difference((one, copy), draws) == 0
    outcome = game.play((one, copy), draws)
    assert torch.equal(outcome.seen, draws.noise)
    outcome.loss.sum().backward()
    assert bool(torch.isfinite(one.cooperation.grad))  # d is not differentiable at 0; its gradient there is 0
    apart = (game.cooperate(draws.test_context) - game.defect(draws.test_context)).norm(dim=-1).mean()
    with torch.no_grad():
        difference = game.difference((one, other), draws)
        assert float(difference) == pytest.approx(0.1 * float(apart))
        assert game.difference((other, one), draws) == difference


def test_the_difference_compares_answers_to_small_differences():
    """Policies that differ only beyond the test range count as equal; within it, they do not."""
    game = SimilarityGame(test_scale=0.1, noise_scale=0.5)
    draws = game.draw(4096, generator())
    assert 0.09 < float(draws.test_difference.max()) <= 0.1
    assert 0.45 < float(draws.noise.max()) <= 0.5

    def until(threshold):
        return lambda seen, x: torch.where((seen < threshold).unsqueeze(-1), game.cooperate(x), game.defect(x))

    assert game.difference((until(0.2), until(0.3)), draws) == 0
    assert float(game.difference((until(0.02), until(0.07)), draws)) == pytest.approx(0.5, abs=0.05)


def test_the_gradient_flows_through_the_difference_unless_cut(game):
    """Seat 1 cooperates less the more it sees, so that seat 0 loses more by being different: the gradient shows it."""
    draws = game.draw(256, generator())
    gradients = {}
    for cut in (False, True):
        mine = Between(game, 0.6)
        outcome = game.play((mine, Between(game, 1.0, slope=2.0)), draws, cut_gradient=cut)
        outcome.loss[:, 0].mean().backward()
        gradients[cut] = float(mine.cooperation.grad)
    apart = (game.cooperate(draws.context) - game.defect(draws.context)).norm(dim=-1).mean()
    assert gradients[True] == pytest.approx(
        float(apart), rel=1e-4
    )  # cooperating has a cost, and there is no other effect
    with torch.no_grad():  # compared with a finite difference
        up, down = (
            game.play((Between(game, 0.6 + h), Between(game, 1.0, slope=2.0)), draws).loss[:, 0].mean()
            for h in (0.01, -0.01)
        )
    assert gradients[False] == pytest.approx(float(up - down) / 0.02, rel=0.02)
    assert gradients[False] < -1 < 0.9 < gradients[True]


def test_each_seats_noise_is_its_own(game):
    draws = game.draw(40_000, generator(2))
    noise = draws.noise.numpy() / 0.1
    assert np.abs(noise.mean(0) - 0.5).max() < 5 * math.sqrt(1 / 12) / 200
    assert np.abs(noise.std(0) - math.sqrt(1 / 12)).max() < 0.01
    assert abs(np.corrcoef(noise.T)[0, 1]) < 5 / 200
    seen = game.play((Between(game, 0.2), Between(game, 0.7)), draws).seen
    difference = game.difference((Between(game, 0.2), Between(game, 0.7)), draws)
    assert torch.allclose(seen - difference, draws.noise, atol=1e-6)
    still = SimilarityGame(noise_scale=0.0, test_scale=0.0).draw(8, generator())
    assert not still.noise.any()
    assert not still.test_difference.any()


def test_a_population_plays_as_its_members_do(game):
    together = game.draw(128, [generator(4), generator(5)])
    weights = torch.tensor([0.3, 0.9])

    def population(slope):
        def play(seen, x):
            weight = (weights.view(2, *[1] * (seen.dim() - 1)) - slope * seen).unsqueeze(-1)
            return weight * game.cooperate(x) + (1 - weight) * game.defect(x)

        return play

    both = game.play((population(1.0), population(2.0)), together)
    assert both.difference.shape == (2,)
    for member, seed in enumerate((4, 5)):
        draws = game.draw(128, generator(seed))
        assert torch.equal(draws.context, together.context[member])
        alone = game.play(
            (Between(game, float(weights[member]), 1.0), Between(game, float(weights[member]), 2.0)), draws
        )
        for name in ("loss", "seen", "difference", "cooperation"):
            assert torch.allclose(getattr(alone, name), getattr(both, name)[member], atol=1e-6), name


def test_the_game_is_a_function_of_its_seed():
    x = torch.rand(1000, 3, generator=generator())
    games = [SimilarityGame(seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(games[0].cooperate(x), games[1].cooperate(x))
    assert not torch.allclose(games[0].cooperate(x), games[2].cooperate(x))
    state = torch.get_rng_state()
    for game in games:
        apart = (game.cooperate(x) - game.defect(x)).norm(dim=-1)
        assert float(apart.mean()) == pytest.approx(1, abs=0.05)
        assert float(apart.min()) > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_responses_and_pictures(game):
    x = game.draw(64, generator()).context
    seen = torch.tensor([0.0, 0.25, 0.5])
    falling = Between(game, 1.0, slope=2.0)
    assert game.response(falling, seen, x).tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-5)
    assert game.response(defector(game), seen, x).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    picture = game.render((falling, Between(game, 0.9, slope=1.0)))
    assert picture.shape == (300, 560, 3)
    assert picture.dtype == np.uint8
    assert (picture != game.render((falling, falling))).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain": 0.0}, "gain: got 0.0; wanted a finite number from 1"),
        ({"gain": -5}, "gain: got -5"),
        ({"gain": 1}, "gain: got 1, where mutual cooperation has no benefit"),
        ({"gain": float("nan")}, "gain: got nan"),
        ({"gain": float("inf")}, "gain: got inf"),
        ({"context_size": 0}, "context_size: got 0; wanted an integer from 1"),
        ({"answer_size": 2.0}, "answer_size: got 2.0"),
        ({"noise_scale": -0.1}, "noise_scale: got -0.1; wanted a finite number from 0"),
        ({"test_scale": float("inf")}, "test_scale: got inf"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        SimilarityGame(**settings)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (nn.Linear(4, 3), r"policies\[1\]: got TypeError .*; wanted a network of a difference \[8\] and a context"),
        (lambda seen, x: x @ torch.zeros(5, 3), r"policies\[1\]: got RuntimeError .*wanted a network of"),
        (lambda seen, x: x[:, :2], r"policies\[1\]: got answers of shape \[8, 2\]; wanted a tensor \[8, 3\]"),
        (lambda seen, x: x[:4], r"policies\[1\]: got answers of shape \[4, 3\]"),
        (lambda seen, x: None, r"policies\[1\]: got answers of None; wanted a tensor \[8, 3\]"),
        (lambda seen, x: x / 0, r"policies\[1\]: got answers that are not finite"),
        (lambda seen, x: torch.log(-x), r"policies\[1\]: got answers that are not finite"),
        (0.5, r"policies\[1\]: got TypeError"),
    ],
)
def test_networks_that_do_not_match_are_refused(game, policy, message):
    draws = game.draw(8, generator())
    with pytest.raises(GameError, match=message):
        game.play((cooperator(game), policy), draws)


def test_a_wrong_number_of_seats_or_plays_is_refused(game):
    draws = game.draw(8, generator())
    for policies in ((), (cooperator(game),), (cooperator(game),) * 3):
        with pytest.raises(GameError, match=f"policies: got {len(policies)}; wanted 2"):
            game.play(policies, draws)
    with pytest.raises(GameError, match="plays: got 0; wanted an integer from 1"):
        game.draw(0, generator())
    with pytest.raises(GameError, match="generator: got an empty list"):
        game.draw(8, [])
