"""An encoder of chosen factors by ranking: numbers whose order in two pictures is the one that labels say.

For each factor k a network's output d_k is trained by logistic regression on compared pairs: the probability that
factor k is larger in x1 than in x2 is sigmoid(d_k(x1) - d_k(x2)) (Bradley and Terry 1952; Burges et al. 2005,
"Learning to rank using gradient descent"). This is the term for pairs in the discriminator of Shu et al.'s
rank-pairing network (:mod:`~mlbits.agents.representation.rank_gan`) alone, and learns in seconds what that learns in
hours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.representation.labels import Labels
from mlbits.agents.representation.networks import Convolutions

LEARNING_RATE, BATCH = 2e-3, 64


def learn_rank(
    pictures: Tensor, labels: Labels, iterations: int, generator: torch.Generator, *, batch: int = BATCH
) -> Convolutions:
    """Train a ranker.

    Args:
        pictures: uint8 [n, C, H, W].
        labels: compared pairs of them, with K factors.
        iterations: steps of Adam; the learning rate falls along a cosine to 0.
        generator: the source of weights and minibatches.
        batch: pairs a step.

    Returns:
        A network of pictures to K numbers, each of which grows with its factor.

    Raises:
        AgentError: for pictures that are too small.
    """
    device = pictures.device
    channels, height, width = pictures.shape[1:]
    network = Convolutions((channels, height, width), labels.answers.shape[1], generator).to(device)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    first, second = (torch.from_numpy(part).to(device) for part in (labels.first, labels.second))
    sign = torch.from_numpy(labels.answers).to(device).float() * 2 - 1
    for _ in range(iterations):
        drawn = torch.randint(len(first), (batch,), generator=generator).to(device)
        both = network(torch.cat([pictures[first[drawn]], pictures[second[drawn]]]))
        difference = both[:batch] - both[batch:]
        loss = F.softplus(-sign[drawn] * difference).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network
