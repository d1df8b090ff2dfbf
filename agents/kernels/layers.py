"""The parameters of an MLP as tensors, in the form that kernels take."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Layers(NamedTuple):
    """The parameters of an MLP with L hidden layers of widths h_1 to h_L.

    Attributes:
        is_index: for each input part, whether it holds indices into its table.
        tables: for each input part, its weight in the first layer, [d, h_1]: for d inputs, or with d rows to look up.
        weights: between hidden layers, L - 1 of them, [h_k, h_k+1].
        biases: of the hidden layers, L of them, [h_k].
        head: [out, h_L].
        head_bias: [out].
    """

    is_index: tuple[bool, ...]
    tables: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    head: Tensor
    head_bias: Tensor
