"""Reads models that Stable-Baselines3 saved (MODEL.zip) without running code of their authors.

In such a file ``policy.pth`` holds the weights, which ``torch.load(weights_only=True)`` reads; ``data`` is JSON, in
which whatever is not plain stands twice: pickled, and as text for people. The text is enough for the policies of SB3
and sb3-contrib: it names the class of the policy and of its layers, and lists bounds and sizes of the spaces.
Names are looked up in tables here, never imported from what the file says, and nothing is unpickled. A policy is made
with at most the sizes that its weights have.

What cannot be read in this way (a policy or layer of the author's own, ``VecNormalize``'s statistics) is a pickle, and
to unpickle is to run what its author wrote: :mod:`mlbits.envs.core.trust` says when that is done.
"""

from __future__ import annotations

import importlib
import inspect
import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mlbits.agents.agent import AgentError
from mlbits.agents.sb3.space_texts import UnreadableSpace, read_space
from mlbits.envs.core.plain_json import MOST_BYTES, read_json
from mlbits.envs.core.trust import needs_trust

MOST_RATIO, FREE_BYTES = 20, 2**20  # how much a zip may unpack to: times its size, and what any may

# Contents of the zip


def read_data(path: Path) -> dict[str, Any]:
    """The settings of a saved model, as JSON; whatever is pickled in them stays text.

    Raises:
        AgentError: if the file is missing, not a saved model, or unpacks to much more than its size.
    """
    try:
        contents = read_json(_unpacked(path, "data", MOST_BYTES))
    except FileNotFoundError:
        raise AgentError(f"{path}: not found; wanted a model that Stable-Baselines3 saved") from None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, AgentError):
            raise
        raise AgentError(f"{path}: not a saved model ({error}); wanted one that Stable-Baselines3 saved") from None
    if not isinstance(contents, dict) or "policy_class" not in contents:
        raise AgentError(f"{path}: got a file without a policy_class; wanted a model that Stable-Baselines3 saved")
    return contents


def _unpacked(path: Path, member: str, most: int) -> bytes:
    """One member of a zip."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        _check_sizes(path, archive, size)
        with archive.open(member) as file:
            data = file.read(most + 1)  # checks the member's own sum, too
    if len(data) > most:
        raise AgentError(f"{path}: its {member!r} has more than {most:,} bytes; wanted a smaller one")
    return data


def _check_sizes(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    total = sum(entry.file_size for entry in archive.infolist())
    if total > MOST_RATIO * size + FREE_BYTES:
        raise AgentError(
            f"{path}: its {size:,} bytes unpack to {total:,}; wanted at most {MOST_RATIO} times as many as it has"
        )


def _weights(path: Path) -> dict[str, Tensor]:
    data = _unpacked(path, "policy.pth", 2**40)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # torch's own format is a zip in turn
            _check_sizes(path, archive, len(data))
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except AgentError:
        raise
    except Exception as error:  # of a damaged file torch raises many kinds
        first = (str(error).splitlines() or [""])[0]
        raise AgentError(f"{path}: its weights cannot be read ({type(error).__name__}: {first[:200]})") from None
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise AgentError(f"{path}: its policy.pth holds no weights; wanted a table of tensors")
    return dict(found)


# The policy

_POLICIES = {
    "stable_baselines3.common.policies": ("ActorCriticPolicy", "ActorCriticCnnPolicy", "MultiInputActorCriticPolicy"),
    "stable_baselines3.dqn.policies": ("DQNPolicy", "CnnPolicy", "MultiInputPolicy"),
    "stable_baselines3.sac.policies": ("SACPolicy", "CnnPolicy", "MultiInputPolicy"),
    "stable_baselines3.td3.policies": ("TD3Policy", "CnnPolicy", "MultiInputPolicy"),
    "sb3_contrib.common.maskable.policies": (
        "MaskableActorCriticPolicy", "MaskableActorCriticCnnPolicy", "MaskableMultiInputActorCriticPolicy",
    ),
    "sb3_contrib.common.recurrent.policies": (
        "RecurrentActorCriticPolicy", "RecurrentActorCriticCnnPolicy", "RecurrentMultiInputActorCriticPolicy",
    ),
    "sb3_contrib.crossq.policies": ("CrossQPolicy", "CnnPolicy", "MultiInputPolicy"),
    "sb3_contrib.qrdqn.policies": ("QRDQNPolicy", "CnnPolicy", "MultiInputPolicy"),
    "sb3_contrib.tqc.policies": ("TQCPolicy", "CnnPolicy", "MultiInputPolicy"),
}  # fmt: skip
_EXTRACTORS = ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
_ACTIVATIONS = (
    "CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "Mish", "PReLU", "ReLU",
    "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Tanhshrink",
)  # fmt: skip
_FLAGS = (
    "batch_norm", "enable_critic_lstm", "full_std", "normalize_images", "ortho_init", "share_features_extractor",
    "shared_lstm", "squash_output", "use_expln", "use_sde",
)  # fmt: skip
_NUMBERS = ("batch_norm_eps", "batch_norm_momentum", "clip_mean", "log_std_init")
_COUNTS = ("lstm_hidden_size", "n_critics", "n_lstm_layers", "n_quantiles", "renorm_warmup_steps")
_FOR_LEARNING = ("optimizer_class", "optimizer_kwargs")
_CLASS = re.compile(r"<class '([\w.]+)\.(\w+)'>")
_METHOD = re.compile(r"<function (\w+)\.__init__ at 0x[0-9a-f]+>")


def read_policy(
    path: Path,
    contents: Mapping[str, Any],
    observation_space: gym.Space[Any] | None,
    action_space: gym.Space[Any] | None,
    device: torch.device | str,
) -> Any:
    """The policy of a saved model with its weights; nothing is unpickled.

    Args:
        path: the file.
        contents: from :func:`read_data`.
        observation_space: of the seat to be played, whose bounds are taken where the file's text shortens them.
        action_space: the same.
        device: where the policy is kept.

    Raises:
        NeedsTrust: if what the file says in plain text is not enough.
        AgentError: if it is damaged.
    """
    policy_class = _policy_class(path, contents["policy_class"])
    given = {"observation_space": observation_space, "action_space": action_space}
    spaces = []
    for name, space in given.items():
        try:
            spaces.append(read_space(contents.get(name), space))
        except UnreadableSpace as error:
            raise needs_trust(path, f"its {name} ({error})") from None
    arguments = _arguments(path, contents)
    if "use_sde" in inspect.signature(policy_class).parameters:
        arguments["use_sde"] = contents.get("use_sde") is True
    weights = _weights(path)
    _check_widths(path, arguments, weights)
    try:
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"), _Kept():  # takes no memory: is this the policy of these weights?
                shapes = {name: tuple(one.shape) for name, one in policy_class(
                    *spaces, lambda left: 0.0, **arguments).state_dict().items()}  # fmt: skip
            _check_shapes(path, shapes, weights)
            policy = policy_class(*spaces, lambda left: 0.0, **arguments)
            policy.load_state_dict(weights)
    except AgentError:
        raise
    except Exception as error:  # settings that SB3 does not understand raise many kinds
        first = (str(error).splitlines() or [""])[0]
        raise AgentError(
            f"{path}: cannot be loaded as {policy_class.__name__} ({type(error).__name__}: {first[:200]})"
        ) from None
    return policy.to(device)


class _Kept(TorchFunctionMode):
    """Leaves tensors without memory where they are when a module is moved to a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.to and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def _policy_class(path: Path, form: Any) -> Any:
    module = form.get("__module__") if isinstance(form, dict) else None
    found = _METHOD.fullmatch(str(form.get("__init__", ""))) if isinstance(form, dict) else None
    name = found[1] if found else ""
    if not isinstance(module, str) or name not in _POLICIES.get(module, ()):
        raise needs_trust(path, f"its policy class {module}.{name or '?'}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise AgentError(
            f"{path}: {module} cannot be imported; wanted a newer {module.partition('.')[0].replace('_', '-')}"
        ) from None


def _arguments(path: Path, contents: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the policy's constructor."""
    form = contents.get("policy_kwargs", {})
    if not isinstance(form, dict):
        _damaged(path, "policy_kwargs", form)
    arguments = {}
    for name, value in form.items():
        if name in (":type:", ":serialized:", *_FOR_LEARNING):
            continue
        arguments[name] = _argument(path, name, value)
    return arguments


def _argument(path: Path, name: str, value: Any) -> Any:
    if value is None and name not in ("net_arch", "clip_mean"):
        raise needs_trust(path, f"its policy_kwargs[{name!r}]")
    if name in _FLAGS and isinstance(value, bool):
        return value
    if name in _NUMBERS and type(value) in (int, float):
        return float(value)
    if name in _COUNTS and type(value) is int:
        return value
    if name == "net_arch" and _widths(value) is not None:
        return value
    if name in ("features_extractor_kwargs", "lstm_kwargs") and isinstance(value, dict) and _plain_options(value):
        return value
    layer = _layer(name, _CLASS.fullmatch(str(value)))
    if layer is not None:
        return layer
    raise needs_trust(path, f"its policy_kwargs[{name!r}]")


def _layer(name: str, found: re.Match[str] | None) -> Any:
    """The class of layers that a text names, if it is one of torch's or SB3's; else None."""
    if found is None:
        return None
    module, layer = found.groups()
    if name == "activation_fn" and module == "torch.nn.modules.activation" and layer in _ACTIVATIONS:
        return getattr(nn, layer)
    ours = "stable_baselines3.common.torch_layers"
    if name == "features_extractor_class" and module == ours and layer in _EXTRACTORS:
        return getattr(importlib.import_module(ours), layer)
    return None


def _plain_options(options: Mapping[str, Any]) -> bool:
    known = {"features_dim": int, "cnn_output_dim": int, "normalized_image": bool, "dropout": float, "bias": bool}
    return all(type(value) is known.get(name) for name, value in options.items())


def _widths(value: Any) -> list[int] | None:
    """All layer widths of a ``net_arch``; None if it is none."""
    if value is None:
        return []
    if isinstance(value, dict):
        parts = [_widths(part) for name, part in value.items() if name in ("pi", "vf", "qf") and part is not None]
        if len(parts) != len(value) or any(part is None or isinstance(part, dict) for part in parts):
            return None
        return [width for part in parts for width in part or ()]
    if isinstance(value, list) and all(type(width) is int for width in value):
        return list(value)
    return None


def _check_widths(path: Path, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse sizes that no weight has, before anything is made of these sizes."""
    for name, tensor in weights.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            _damaged(path, f"weights {name!r}", f"{tuple(tensor.shape)} in {tensor.untyped_storage().nbytes()} bytes")
    largest = max((size for tensor in weights.values() for size in tensor.shape), default=0)
    widths = _widths(arguments.get("net_arch")) or []
    sizes = {f"net_arch[{number}]": width for number, width in enumerate(widths)}
    options = arguments.get("features_extractor_kwargs", {})
    sizes |= {name: options[name] for name in ("features_dim", "cnn_output_dim") if name in options}
    sizes |= {name: arguments[name] for name in ("lstm_hidden_size", "n_quantiles") if name in arguments}
    for name, size in sizes.items():
        if not 1 <= size <= largest:
            _damaged(path, name, size, f"1 to {largest}, the largest size of its weights")
    for name, count in {
        "net_arch": len(widths),
        **{n: arguments.get(n, 1) for n in ("n_critics", "n_lstm_layers")},
    }.items():
        if not 0 <= count <= len(weights):
            _damaged(path, name, count, f"at most {len(weights)}, as many as it has weights")


def _check_shapes(path: Path, wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> None:
    got = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | got.keys()):
        if wanted.get(name) != got.get(name):
            _damaged(path, f"weights {name!r}", got.get(name, "none"), f"the shape {wanted.get(name, 'of none')}")


def _damaged(path: Path, what: str, got: Any, wanted: str = "what Stable-Baselines3 writes") -> NoReturn:
    raise AgentError(f"{path}: {what}: got {str(got)[:80]}; wanted {wanted}")
