"""Reading the file of a discovered update rule: the published one alone, without pickle, every array checked.

The file is DiscoRL's ``disco_103.npz``. mlbits neither ships nor downloads it; its digest says that it is the published
one, and names, shapes and numbers are checked beside it. Arrays are named as in the file.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError

NAME = "disco_103.npz"
SHA256 = "dac840a15b81e8805326363458c33979626172618f620d9e6e170315388530aa"
BYTES = 2_803_507  # 42 float32 arrays, 754,778 numbers
WHAT = (
    f"{NAME}, the update rule Disco103 of DiscoRL (Oh et al., Nature 2025), which the GitHub repository "
    f"google-deepmind/disco_rl publishes in disco_rl/update_rules/weights ({BYTES:,} bytes, SHA-256 {SHA256}); mlbits "
    "does not come with it"
)

# Of y and z, of each step and each action: a number from a distribution over 600 values, and what is made of actions.
_EMBEDDINGS = {
    **{f"{net}/~/linear_0": (600, 16) for net in ("mlp", "mlp_1")},
    **{f"{net}/~/linear_1": (16, 1) for net in ("mlp", "mlp_1")},
    "sequential/conv1_d": (1, 18, 16),
    "sequential/conv1_d_1": (1, 32, 2),
}
LIFETIME = "lstm/~/meta_lstm/~unroll"
_LAYERS: dict[str, tuple[int, ...]] = {
    **{f"lstm/{name}": shape for name, shape in _EMBEDDINGS.items()},
    "lstm/lstm/linear": (27 + 256, 4 * 256),  # the LSTM that runs backwards through a window
    "lstm/linear": (128, 256),  # its gate, from the LSTM of the lifetime
    "lstm/linear_1": (256, 1),
    "lstm/linear_2": (256, 600),  # the target of y
    "lstm/linear_3": (256, 600),  # the target of z
    "lstm/sequential_1/conv1_d": (1, 2 * (256 + 2), 16),
    "lstm/linear_4": (16, 1),  # the target of the policy
    **{f"{LIFETIME}/{name}": shape for name, shape in _EMBEDDINGS.items()},
    f"{LIFETIME}/mlp_2/~/linear_0": (29, 16),
    f"{LIFETIME}/lstm/linear": (16 + 128, 4 * 128),
}
SHAPES = {f"{name}/w": shape for name, shape in _LAYERS.items()} | {
    f"{name}/b": shape[-1:] for name, shape in _LAYERS.items()
}


def read_rule(path: str) -> dict[str, Tensor]:
    """The arrays of the published rule, float32, by their names in the file.

    Args:
        path: the file.

    Raises:
        AgentError: if there is no such file, it is not the published one, or it is damaged.
    """
    if not path:
        raise AgentError(f"rule: missing; wanted the path of {WHAT}")
    try:
        with Path(path).open("rb") as file:
            data = file.read(BYTES + 1)
    except OSError as error:
        raise AgentError(f"rule: got {path!r} ({error.strerror or error}); wanted the path of {WHAT}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        size = f"{len(data):,} bytes" if len(data) <= BYTES else f"more than {BYTES:,} bytes"
        raise AgentError(f"rule: got {path!r}, {size} with SHA-256 {digest}; wanted {WHAT}")
    return parse_rule(data)


def parse_rule(data: bytes) -> dict[str, Tensor]:
    """The arrays in the bytes of a file; :func:`read_rule` has checked whose they are.

    Raises:
        AgentError: if it is no archive of arrays, or their names, shapes or numbers are not those of a rule.
    """
    room = 2 * sum(4 * int(np.prod(shape)) for shape in SHAPES.values())
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > room:
            raise AgentError(f"rule: unpacks to {unpacked:,} bytes; wanted at most {room:,}")
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile,
            zlib.error) as error:  # fmt: skip
        if isinstance(error, AgentError):
            raise
        raise AgentError(f"rule: no archive of arrays ({error}); wanted {NAME}") from None
    if odd := sorted(set(SHAPES) ^ set(arrays)):
        state = "missing" if odd[0] in SHAPES else "not part of a rule"
        raise AgentError(f"rule: {odd[0]} is {state}; wanted the {len(SHAPES)} arrays of {NAME}")
    for name, shape in SHAPES.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise AgentError(f"rule: {name}: got {array.dtype} {list(array.shape)}; wanted float32 {list(shape)}")
        if not np.isfinite(array).all():
            raise AgentError(f"rule: {name}: got a number that is not finite; wanted finite ones")
    return {name: torch.from_numpy(arrays[name].copy()) for name in SHAPES}
