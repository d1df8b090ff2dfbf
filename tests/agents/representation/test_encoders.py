"""Encoders of pictures on a toy that needs no game: a bright dot whose place is to be found, in light that changes."""

import numpy as np
import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.representation.labels import ask
from mlbits.agents.representation.networks import Convolutions, Deconvolutions
from mlbits.agents.representation.rank import learn_rank
from mlbits.agents.representation.rank_gan import RankGAN, learn_rank_gan
from mlbits.agents.representation.vae import learn_vae


def dots(count, seed):
    """Pictures [count, 1, 16, 16] of a dot, and its x, y and the light, [count, 3]."""
    rng = np.random.default_rng(seed)
    factors = rng.random((count, 3))
    along = (np.arange(16) + 0.5) / 16
    x, y, light = (factors[:, k, None, None] for k in range(3))
    far = (along[None, None, :] - x) ** 2 + (along[None, :, None] - y) ** 2
    shown = (0.4 + 0.6 * light) * (0.3 + 0.7 * np.exp(-far / 0.01))
    return torch.from_numpy((255 * shown).astype(np.uint8))[:, None], factors


def draw(seed):
    return torch.Generator().manual_seed(seed)


def correlation(network, seed=9):
    pictures, factors = dots(300, seed)
    with torch.no_grad():
        latents = network(pictures).numpy()
    return np.array([[np.corrcoef(z, f)[0, 1] for f in factors.T] for z in latents.T])


def test_rankers_find_the_factors_that_labels_are_about_and_no_others():
    pictures, factors = dots(200, 0)
    labels = ask(factors[:, [1, 0]], 400, np.random.default_rng(0), noise=0.05)  # y, then x
    found = correlation(learn_rank(pictures, labels, 100, draw(0)))
    assert min(found[0, 1], found[1, 0]) > 0.85
    assert abs(found[:, 2]).max() < 0.4  # the light
    assert max(abs(found[0, 0]), abs(found[1, 1])) < 0.4


def test_a_step_of_each_part_of_the_pairing_network_goes_the_right_way():
    generator = draw(1)
    made = RankGAN((1, 16, 16), 2, generator)
    pictures = torch.rand(3, 1, 16, 16, generator=generator)
    sign = torch.tensor([[1.0, -1], [1, 1], [-1, -1]])
    out = made.judge(torch.cat([pictures, pictures.flip(0)]))
    one, two = out[:3].detach(), out[3:].detach()
    wanted = one[:, 0] + two[:, 0] + sign[:, 0] * (one[:, 1] - two[:, 1]) + sign[:, 1] * (one[:, 2] - two[:, 2])
    got = made.score(pictures, pictures.flip(0), sign)
    assert torch.allclose(got, wanted, atol=1e-3)  # a step of the power iteration lies between
    z = torch.randn(3, 2, generator=generator)
    mean, log_deviation = made.encoder.eval()(pictures).split(2, 1)
    density = torch.distributions.Normal(mean, log_deviation.exp()).log_prob(z).sum(1)
    assert float(made.code_loss(pictures, z).detach()) == pytest.approx(
        float(-density.mean() - np.log(2 * np.pi)), abs=1e-4
    )


def test_a_pairing_network_learns_what_its_encoder_gives():
    pictures, factors = dots(64, 0)
    labels = ask(factors[:, :1], 100, np.random.default_rng(0))
    network = learn_rank_gan(pictures, labels, 3, draw(0), batch=16)
    assert network(pictures).shape == (64, 1)
    again = learn_rank_gan(pictures, labels, 3, draw(0), batch=16)
    assert torch.equal(network(pictures), again(pictures))
    assert all("parametrizations" not in name for name in network.state_dict())


@pytest.mark.slow
def test_a_pairing_network_finds_a_factor():
    pictures, factors = dots(200, 0)
    labels = ask(factors[:, :1], 1000, np.random.default_rng(0))
    assert correlation(learn_rank_gan(pictures, labels, 1500, draw(0)))[0, 0] > 0.6


def test_an_autoencoder_codes_the_light_before_the_place():
    pictures, _ = dots(200, 0)
    found = abs(correlation(learn_vae(pictures, 4, 60, draw(0)))).max(0)
    assert found[2] > 0.9
    assert found[:2].max() < 0.6


def test_pictures_are_decoded_in_their_own_size():
    for height, width in ((24, 24), (30, 17), (84, 84)):
        made = Deconvolutions((3, height, width), 5, draw(0))(torch.randn(2, 5, generator=draw(1)))
        assert made.shape == (2, 3, height, width)
        assert 0 < float(made.detach().min()) < float(made.detach().max()) < 1
        assert Convolutions((3, height, width), 7, draw(0))(made.detach()).shape == (2, 7)


def test_weights_come_from_the_generator_alone():
    for spectral in (False, True):
        torch.manual_seed(1)
        one = Convolutions((1, 16, 16), 2, draw(5), spectral=spectral).state_dict()
        torch.manual_seed(2)
        two = Convolutions((1, 16, 16), 2, draw(5), spectral=spectral).state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_pictures_that_are_too_small_are_refused():
    with pytest.raises(
        AgentError, match="got pictures of 12 x 20, too small for 3 convolutions; wanted at least 16 x 16"
    ):
        Convolutions((1, 12, 20), 2, draw(0))
