"""An encoder from pictures alone: a variational autoencoder, whose latents say what pictures differ by most.

Kingma and Welling (2014); as goals of reinforcement learning Nair et al. 2018, "Visual reinforcement learning with
imagined goals" (RIG). Pixels are normal around what is decoded, with a deviation of 0.1, which is a beta of 0.02 for
squared errors. What changes every pixel, such as the light, is coded first, and small things late.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlbits.agents.representation.networks import Convolutions, Deconvolutions
from mlbits.agents.representation.rank_gan import MeanOf

LEARNING_RATE, BATCH, DEVIATION = 1e-3, 64, 0.1


def learn_vae(
    pictures: Tensor, latents: int, iterations: int, generator: torch.Generator, *, batch: int = BATCH
) -> MeanOf:
    """Train a variational autoencoder.

    Args:
        pictures: uint8 [n, C, H, W].
        latents: how many numbers Z.
        iterations: steps of Adam.
        generator: the source of weights, minibatches and noise.
        batch: pictures a step.

    Returns:
        A network of pictures to the means of their Z latents, which are N(0, 1) where they are in use and near 0
        where they are not.

    Raises:
        AgentError: for pictures that are too small.
    """
    device = pictures.device
    channels, height, width = pictures.shape[1:]
    shape = (channels, height, width)
    encoder = Convolutions(shape, 2 * latents, generator).to(device)
    decoder = Deconvolutions(shape, latents, generator).to(device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], LEARNING_RATE)
    for _ in range(iterations):
        drawn = torch.randint(len(pictures), (batch,), generator=generator).to(device)
        shown = pictures[drawn].float() / 255
        mean, log_variance = _split(encoder(shown), latents)
        noise = torch.randn(batch, latents, generator=generator).to(device)
        error = (decoder(mean + noise * (0.5 * log_variance).exp()) - shown).square().flatten(1).sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        loss = (error / (2 * DEVIATION**2) + divergence).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return MeanOf(encoder, latents)


def _split(out: Tensor, latents: int) -> tuple[Tensor, Tensor]:
    mean, log_variance = out.split(latents, 1)
    return mean, log_variance.clamp(-10, 4)
