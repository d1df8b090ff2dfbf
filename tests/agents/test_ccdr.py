"""CCDR, alternating best response and LOLA: gradients by an independent computation, turns, learning."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from mlbits.agents.agent import AgentError
from mlbits.agents.ccdr import (
    SimilarityLearningConfig,
    SimilarityNetwork,
    _learner,
    _step,
    alternate,
    make_pairs,
    pretrain,
)
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.envs.policy_similarity import SimilarityGame

GAME = SimilarityGame()
SMALL = SimilarityLearningConfig(hidden=(16, 8), batch=16, pretraining_steps=5, turns=2, steps_per_turn=3)


class Sequential(nn.Module):
    """The same network, by torch's own layers."""

    def __init__(self, network):
        super().__init__()
        layers = []
        for weight, bias in zip(network.parameters[::2], network.parameters[1::2], strict=True):
            layer = nn.Linear(*weight.shape)
            layer.weight.data, layer.bias.data = weight.t().clone(), bias[0].clone()
            layers += [layer, nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, difference, context):
        return self.layers(torch.cat([10 * difference[..., None], context], -1))


def weights(pairs):
    return [[p.detach().clone() for p in player.parameters] for player in pairs.players]


def test_networks_have_the_papers_layers():
    config = SimilarityLearningConfig()
    pairs = make_pairs(GAME, config, [3, 4])
    shapes = [tuple(p.shape) for p in pairs.players[0].parameters]
    assert shapes == [
        (2, 4, 100), (2, 1, 100), (2, 100, 50), (2, 1, 50), (2, 50, 50), (2, 1, 50), (2, 50, 3), (2, 1, 3)
    ]  # fmt: skip
    everything = [*weights(pairs)[0], *weights(pairs)[1]]
    for p, (fan_in, _) in zip(everything, 2 * [s[1:] for s in shapes[::2] for _ in range(2)], strict=True):
        assert float(p.abs().max()) <= fan_in**-0.5
        assert not torch.equal(p[0], p[1])
        if p.numel() > 100:
            assert float(p.std()) == pytest.approx((3 * fan_in) ** -0.5, rel=0.15)
    assert not torch.equal(everything[0], everything[8])
    x, seen = torch.rand(2, 32, 3), torch.rand(2, 32)
    together = pairs.players[1](seen, x)
    for k in range(2):
        member = pairs.players[1].member(k)
        assert torch.allclose(member(seen[k], x[k]), together[k], atol=1e-6)
        assert torch.allclose(Sequential(member)(seen[k], x[k]), together[k], atol=1e-6)


@pytest.mark.parametrize("seat", [0, 1])
@pytest.mark.parametrize("settings", [{}, {"cut_gradient": True}, {"lookahead": 0.5}])
def test_a_step_follows_the_gradient_of_the_players_own_loss(seat, settings):
    """Computed again with torch's own layers and torch.func; the other player's weights are fixed."""
    config = dataclasses.replace(SMALL, **settings)
    pairs = make_pairs(GAME, config, [1])
    before = weights(pairs)
    modules = [Sequential(player.member(0)) for player in pairs.players]
    draws = GAME.draw(config.batch, pairs.generators[0][2].clone_state())
    learner, optimizer = _learner(pairs.players[seat], config.learning_rate)
    players = list(pairs.players)
    players[seat] = learner
    _step(GAME, players, seat, [pairs.generators[0][2]], config, optimizer)

    def loss(own, other, whose):
        bound = [None, None]
        for k, parameters in ((seat, own), (1 - seat, other)):
            bound[k] = lambda seen, x, k=k, parameters=parameters: functional_call(modules[k], parameters, (seen, x))
        test = [policy(draws.test_difference, draws.test_context) for policy in bound]
        difference = (test[0] - test[1]).norm(dim=-1).mean()
        if config.cut_gradient:
            difference = difference.detach()
        seen = difference + draws.noise
        answers = [policy(seen[:, k], draws.context) for k, policy in enumerate(bound)]
        selfish = (answers[whose] - GAME.defect(draws.context)).norm(dim=-1)
        return (selfish + 5 * (answers[1 - whose] - GAME.cooperate(draws.context)).norm(dim=-1)).mean()

    def after_the_others_step(own, other):
        if config.lookahead:
            step = grad(lambda theirs: loss(own, theirs, 1 - seat))(other)
            other = {name: value - config.lookahead * step[name] for name, value in other.items()}
        return loss(own, other, seat)

    own, other = (dict(modules[k].named_parameters()) for k in (seat, 1 - seat))
    wanted = grad(after_the_others_step)(own, {name: value.detach() for name, value in other.items()})
    wanted = [value.detach().t() if value.dim() == 2 else value.detach()[None] for value in wanted.values()]
    for parameter, value in zip(learner.parameters, wanted, strict=True):
        assert torch.allclose(parameter.grad[0], value, rtol=1e-3, atol=1e-5)
    assert max(float(value.abs().max()) for value in wanted) > 0.1
    for parameter, was in zip(players[1 - seat].parameters, before[1 - seat], strict=True):
        assert torch.equal(parameter, was)
        assert parameter.grad is None
    moved = [float((p.detach() - was).abs().max()) for p, was in zip(learner.parameters, before[seat], strict=True)]
    assert max(moved) == pytest.approx(config.learning_rate, rel=0.01)  # Adam's first step


def test_a_pairs_results_do_not_depend_on_the_others():
    found = []
    for seeds in ([7], [2, 7, 5]):
        pairs = make_pairs(GAME, SMALL, seeds)
        pretrain(GAME, pairs, SMALL)
        pretrained = weights(pairs)
        turns = list(alternate(GAME, pairs, SMALL))
        assert turns == [1, 2]
        member = seeds.index(7)
        found.append([p[member] for stage in (pretrained, weights(pairs)) for player in stage for p in player])
        found[-1] += [value[member] for value in pairs.evaluate(GAME)]
    for alone, among in zip(*found, strict=True):
        assert torch.allclose(alone, among, atol=1e-5)


def test_copies_are_independent_and_reproducible():
    pairs = make_pairs(GAME, SMALL, [0, 1])
    copies = [pairs.copy(), pairs.copy(), pairs.copy((0, 0))]
    before = weights(pairs)
    for copy in copies:
        assert list(alternate(GAME, copy, SMALL)) == [1, 2]
    first, second, literal = (weights(copy) for copy in copies)
    flat = [list(itertools.chain(*stage)) for stage in (first, second, weights(pairs), before, literal)]
    assert all(torch.equal(a, b) for a, b in zip(flat[0], flat[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(flat[2], flat[3], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(flat[0], flat[4], strict=True))
    literal = pairs.copy((0, 0))
    assert not literal.evaluate(GAME).difference.any()
    assert bool((pairs.evaluate(GAME).difference > 0.01).all())


def test_networks_learn_to_cooperate_unless_the_gradient_is_cut():
    """A short run with one pair and small networks: mutual cooperation has loss 1, mutual defection 5."""
    config = SimilarityLearningConfig(
        hidden=(32, 32), batch=64, pretraining_steps=500, turns=3, steps_per_turn=50, learning_rate=3e-3
    )
    pairs = make_pairs(GAME, config, [0])
    before = pairs.evaluate(GAME).loss.mean()
    pretrain(GAME, pairs, config)
    outcome = pairs.evaluate(GAME)
    assert outcome.loss.mean() < 1.7 < 2.5 < before
    assert outcome.cooperation.mean() > 0.85
    stranger = make_pairs(GAME, config, [9]).players[1].member(0)
    met = GAME.play((pairs.players[0].member(0), stranger), GAME.draw(512, torch.Generator().manual_seed(0)))
    assert met.cooperation[:, 0].mean() < 0.35
    ends = {}
    for cut in (False, True):
        learning = pairs.copy()
        for _ in alternate(GAME, learning, dataclasses.replace(config, cut_gradient=cut)):
            pass
        ends[cut] = float(learning.evaluate(GAME).loss.mean())
    assert ends[False] < 2.7
    assert ends[True] > 4


def test_the_global_generator_is_unused_and_zero_steps_change_nothing():
    state = torch.get_rng_state()
    pairs = make_pairs(GAME, SMALL, [0, 1])
    before = weights(pairs)
    pretrain(GAME, pairs, dataclasses.replace(SMALL, pretraining_steps=0))
    for was, now in zip(itertools.chain(*before), itertools.chain(*weights(pairs)), strict=True):
        assert torch.equal(was, now)
    pretrain(GAME, pairs, SMALL)
    assert list(alternate(GAME, pairs, dataclasses.replace(SMALL, turns=0))) == []
    pairs.evaluate(GAME)
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_networks_have_no_gradient():
    network, optimizer = _learner(make_pairs(GAME, SMALL, [0]).players[0], 1e-3)
    assert isinstance(optimizer, FlatAdam)
    assert all(p.requires_grad for p in network.parameters)
    for still in (network.frozen(), network.member(0), network.part(0, 1)):
        assert isinstance(still, SimilarityNetwork)
        assert not any(p.requires_grad for p in still.parameters)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": ()}, r"hidden: got \(\); wanted one or more positive widths"),
        ({"hidden": (10, 0)}, r"hidden: got \(10, 0\)"),
        ({"learning_rate": -1.0}, "learning_rate: got -1.0; wanted a number from 0 to 10"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"batch": 0}, "batch: got 0; wanted a number from 1"),
        ({"turns": -1}, "turns: got -1"),
        ({"lookahead": -0.1}, "lookahead: got -0.1; wanted a number from 0"),
        ({"lookahead": 0.1, "cut_gradient": True}, "lookahead: got 0.1 with cut_gradient; wanted 0"),
        ({"difference_factor": 0.0}, "difference_factor: got 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(AgentError, match=message):
        SimilarityLearningConfig(**settings)


@pytest.mark.parametrize("seeds", [[], [0, -1]])
def test_bad_seeds_are_refused(seeds):
    with pytest.raises(AgentError, match=r"seeds: got .*; wanted one or more numbers from 0 on"):
        make_pairs(GAME, SMALL, seeds)
