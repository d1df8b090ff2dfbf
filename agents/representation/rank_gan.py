"""An encoder of chosen factors by the rank-pairing network of Shu et al. (2020, arXiv 1910.09772), as in the WSC paper.

A generator G makes pictures from z ~ N(0, I), one number for each factor that labels are about. A pair is made from z1
and z2 together with the answers that they stand for, y_k = [z1_k > z2_k]. A discriminator tells such pairs from
labelled ones, by the score

    D(x1, x2, y) = o(x1) + o(x2) + sum_k (2 y_k - 1) (d_k(x1) - d_k(x2))

so that G has to make pictures whose factors are in the order of z. An encoder E maximises log N(z; E(G(z))) on
generated pictures alone, and then reads real ones. Cross-entropy, non-saturating; a step of D and E, then one of G, by
Adam with betas 0.5 and 0.999.

Differences: three convolutions with coordinates (:mod:`~mlbits.agents.representation.networks`) in place of four
without, and no batch normalisation in G. The paper takes 100,000 iterations, which are hours on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.representation.labels import Labels
from mlbits.agents.representation.networks import Convolutions, Deconvolutions

LEARNING_RATE, BETAS, BATCH = 1e-3, (0.5, 0.999), 64


class RankGAN(nn.Module):
    """Generator, discriminator and encoder.

    Args:
        shape: (C, H, W) of the pictures.
        factors: how many factors K labels are about.
        generator: the source of initial weights.
    """

    def __init__(self, shape: tuple[int, int, int], factors: int, generator: torch.Generator) -> None:
        super().__init__()
        self.factors = factors
        self.maker = Deconvolutions(shape, factors, generator)
        self.judge = Convolutions(shape, 1 + factors, generator, spectral=True)
        self.encoder = Convolutions(shape, 2 * factors, generator, spectral=True)

    def score(self, first: Tensor, second: Tensor, sign: Tensor) -> Tensor:
        """D of pairs [N], for signs 2 y - 1, [N, K]."""
        both = self.judge(torch.cat([first, second]))
        one, two = both[: len(first)], both[len(first) :]
        return one[:, 0] + two[:, 0] + (sign * (one[:, 1:] - two[:, 1:])).sum(1)

    def code_loss(self, pictures: Tensor, z: Tensor) -> Tensor:
        """Minus the mean log density of z [N, K] where the encoder puts the pictures that were made from it."""
        mean, log_deviation = self.encoder(pictures).split(self.factors, 1)
        log_deviation = log_deviation.clamp(-5, 2)
        return (0.5 * ((z - mean) / log_deviation.exp()).square() + log_deviation).sum(1).mean()


class MeanOf(nn.Module):
    """The means that an encoder gives, the first of its numbers."""

    def __init__(self, encoder: nn.Module, count: int) -> None:
        super().__init__()
        self.encoder, self.count = encoder, count

    def forward(self, pictures: Tensor) -> Tensor:
        """Means [N, count] of pictures."""
        out: Tensor = self.encoder(pictures)[:, : self.count]
        return out


def learn_rank_gan(
    pictures: Tensor, labels: Labels, iterations: int, generator: torch.Generator, *, batch: int = BATCH
) -> MeanOf:
    """Train the network.

    Args:
        pictures: uint8 [n, C, H, W].
        labels: compared pairs of them, with K factors.
        iterations: steps of each part.
        generator: the source of weights, minibatches and z.
        batch: pairs a step.

    Returns:
        A network of pictures to K numbers, each of which grows with its factor.

    Raises:
        AgentError: for pictures that are too small.
    """
    device, factors = pictures.device, labels.answers.shape[1]
    channels, height, width = pictures.shape[1:]
    made = RankGAN((channels, height, width), factors, generator).to(device)
    judging = torch.optim.Adam([*made.judge.parameters(), *made.encoder.parameters()], LEARNING_RATE, BETAS)
    making = torch.optim.Adam(made.maker.parameters(), LEARNING_RATE, BETAS)
    first, second = (torch.from_numpy(part).to(device) for part in (labels.first, labels.second))
    signs = torch.from_numpy(labels.answers).to(device).float() * 2 - 1
    for _ in range(iterations):
        drawn = torch.randint(len(first), (batch,), generator=generator).to(device)
        z1, z2 = (torch.randn(batch, factors, generator=generator).to(device) for _ in range(2))
        sign = (z1 > z2).float() * 2 - 1
        x1, x2 = made.maker(torch.cat([z1, z2])).split(batch)
        real = made.score(pictures[first[drawn]].float() / 255, pictures[second[drawn]].float() / 255, signs[drawn])
        unreal = made.score(x1.detach(), x2.detach(), sign)
        loss = F.softplus(-real).mean() + F.softplus(unreal).mean() + made.code_loss(x1.detach(), z1)
        judging.zero_grad()
        loss.backward()
        judging.step()
        making.zero_grad()
        F.softplus(-made.score(x1, x2, sign)).mean().backward()
        making.step()
    made.eval()
    for layer in (*made.encoder.convolutions, *made.encoder.dense):
        nn.utils.parametrize.remove_parametrizations(layer, "weight")
    return MeanOf(made.encoder, factors)
