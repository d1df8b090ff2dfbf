"""Networks of encoders: convolutions from pictures to numbers, and back.

Three convolutions with stride 2 halve each side, so that pictures of 24 pixels end as 3 x 3 places. Two channels with
each pixel's coordinates are added in front (Liu et al. 2018, "An intriguing failing of convolutional neural
networks"): a position is then nearly linear in what the first layer sees.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.agent import AgentError

SMALLEST = 16  # pixels along a side, of which three halvings leave two
LAYERS = 3


class Convolutions(nn.Module):
    """Pictures uint8 [N, C, H, W] to numbers [N, outputs].

    Args:
        shape: (C, H, W).
        outputs: how many numbers.
        generator: the source of initial weights.
        filters: of each convolution.
        hidden: width of the layer between the convolutions and the numbers.
        spectral: whether each layer's largest singular value is held at 1 (Miyato et al. 2018).

    Raises:
        AgentError: for pictures that are too small.
    """

    coordinates: Tensor

    def __init__(
        self, shape: tuple[int, int, int], outputs: int, generator: torch.Generator, *, filters: int = 32,
        hidden: int = 128, spectral: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, height, width = shape
        if min(height, width) < SMALLEST:
            raise AgentError(
                f"encoder: got pictures of {height} x {width}, too small for {LAYERS} convolutions; "
                f"wanted at least {SMALLEST} x {SMALLEST}"
            )
        rows, columns = (torch.linspace(-1, 1, side) for side in (height, width))
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        self.register_buffer("coordinates", grid, persistent=False)
        ins = [channels + 2, filters, filters]
        convolutions = [nn.Conv2d(count, filters, 4, 2, 1) for count in ins]
        places = math.prod(halved(side) for side in (height, width))
        dense = [nn.Linear(filters * places, hidden), nn.Linear(hidden, outputs)]
        for layer in (*convolutions, *dense):
            draw_weights(layer, generator)
        if spectral:
            for layer in (*convolutions, *dense):
                with torch.random.fork_rng(devices=[]):  # its first vectors are drawn from the global generator
                    torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
                    nn.utils.parametrizations.spectral_norm(layer)
        self.convolutions, self.dense = nn.ModuleList(convolutions), nn.ModuleList(dense)

    def forward(self, pictures: Tensor) -> Tensor:
        """Numbers [N, outputs] of pictures: bytes, or float32 from 0 to 1."""
        shown = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
        x = torch.cat([shown - 0.5, self.coordinates.expand(len(shown), -1, -1, -1)], 1)
        for layer in self.convolutions:
            x = F.leaky_relu(layer(x), 0.1)
        x = F.leaky_relu(self.dense[0](x.flatten(1)), 0.1)
        out: Tensor = self.dense[1](x)
        return out


class Deconvolutions(nn.Module):
    """Numbers [N, inputs] to pictures [N, C, H, W] from 0 to 1.

    Args:
        shape: (C, H, W).
        inputs: how many numbers.
        generator: the source of initial weights.
        filters: of each transposed convolution but the last.
        hidden: width of the first layer.
    """

    def __init__(
        self, shape: tuple[int, int, int], inputs: int, generator: torch.Generator, *, filters: int = 32,
        hidden: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.filters = shape, filters
        self.start = tuple(-(-side // 2**LAYERS) for side in shape[1:])  # rounded up; the picture is cut at last
        self.dense = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, filters * math.prod(self.start))])
        outs = [filters, filters, shape[0]]
        self.convolutions = nn.ModuleList(nn.ConvTranspose2d(filters, count, 4, 2, 1) for count in outs)
        for layer in (*self.dense, *self.convolutions):
            draw_weights(layer, generator)

    def forward(self, numbers: Tensor) -> Tensor:
        """Pictures [N, C, H, W]."""
        x = F.leaky_relu(self.dense[0](numbers), 0.1)
        x = F.leaky_relu(self.dense[1](x), 0.1).view(len(x), self.filters, *self.start)
        for layer in self.convolutions[:-1]:
            x = F.leaky_relu(layer(x), 0.1)
        _, height, width = self.shape
        return torch.sigmoid(self.convolutions[-1](x))[:, :, :height, :width]


def halved(side: int) -> int:
    """What the convolutions leave of a side."""
    return side // 2**LAYERS


def draw_weights(layer: nn.Module, generator: torch.Generator) -> None:
    """Weights of a layer, normal with He et al.'s (2015) deviation, from a generator; biases 0."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    # A transposed convolution of stride 2 adds up a quarter of its kernel at each pixel.
    fan_in = weight.shape[0] * 4 if isinstance(layer, nn.ConvTranspose2d) else weight[0].numel()
    with torch.no_grad():
        weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
        layer.bias.zero_()  # type: ignore[operator]
