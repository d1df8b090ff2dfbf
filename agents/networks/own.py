"""Networks of one's own: a torch module from ``module:factory``, as the encoder of observations or as a whole network.

An encoder's factory is called as ``make_encoder(observation_space=..., generator=...)`` and returns a module that maps
N observations, as the environment gives them, to features, float32 [N, d]; the agent's own layers stand on them. A
model's factory is called as ``make_model(observation_space=..., outputs=..., generator=...)`` and returns a module
that maps them to float32 [N, outputs], for an actor and critic together with values [N].

Initial weights follow from the seed: layers that draw theirs from torch's global generator find one that is seeded, and
left as it was; others may draw from ``generator``. Modules are trained, saved and restored with the agent. Shapes are
checked when the agent is made.

A factory is only called if it declares these arguments by name: a name in a stranger's file cannot call anything else
([SECURITY.md](../../SECURITY.md)).

Example:
    >>> import torch
    >>> from gymnasium import spaces
    >>> def make_encoder(observation_space, generator):
    ...     return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
    >>> features = OwnFeatures("encoder", make_encoder, spaces.Box(-1, 1, (4,)), torch.Generator().manual_seed(0))
    >>> features.widths, tuple(features(torch.zeros(3, 4))[0].shape)
    ([8], (3, 8))
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from mlbits.agents.agent import AgentError
from mlbits.agents.networks.features import Features
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.spaces import observation_layout
from mlbits.envs.origins import import_module, importable_name

SETTINGS = ("encoder", "model")  # settings of agents that name a factory
Factory = Callable[..., nn.Module]
ENCODER_HELP = (
    "a published encoder of pictures (drq, small, mnih), or your own as module:factory, observations to features "
    "[N, d]; '' for mlbits' own"
)


def factory_name(setting: str, factory: Any) -> str:
    """The name under which a factory is found again, "module:name".

    Args:
        setting: the setting that it was given for.
        factory: a function or class at the top level of a module, a script or a notebook. What a script without
            ``if __name__ == "__main__":`` or a notebook defines is found by this process alone.

    Raises:
        AgentError: if it has no such name.
    """
    module, name = str(getattr(factory, "__module__", "")), str(getattr(factory, "__qualname__", ""))
    if getattr(sys.modules.get(module), name, None) is not factory:
        what = name or repr(factory)
        raise AgentError(f"{setting}: got {what}, which has no name; wanted a function at the top level of a module")
    return f"{importable_name(module) or module}:{name}"


def find_factory(setting: str, name: str, folders: Sequence[str] | None = ()) -> Factory:
    """The factory behind "module:name".

    Args:
        setting: the setting that names it.
        name: its name.
        folders: where to look for its module, see :func:`~mlbits.envs.origins.import_module`: None if the user typed
            the name; the module's folders as a file recorded them.

    Raises:
        AgentError: for a name of another form, or of nothing that can be called.
        GameError: if the module cannot be imported.
    """
    from mlbits.agents.networks.encoders import PUBLISHED

    name = PUBLISHED.get(name, name) if setting == "encoder" else name
    module, colon, attribute = name.partition(":")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise AgentError(f"{setting}: got {name!r}; wanted module:factory, as my_networks:make_{setting}")
    if module in ("__main__", importable_name("__main__")):  # the script that runs, which need not be imported again
        found: Any = sys.modules["__main__"]
    else:
        try:
            found = import_module(module, folders)
        except GameError as error:
            raise GameError(f"{setting}: {name}: {error}") from None
    factory = getattr(found, attribute, None)
    if not callable(factory):
        here = "was defined in a notebook or script of another process" if module == "__main__" else "is not there"
        raise AgentError(f"{setting}: {name} {here}; wanted a function of a module that can be imported")
    return factory


def factories_of(config: Any) -> dict[str, str]:
    """The factories that an agent's config names, by setting."""
    return {name: value for name in SETTINGS if isinstance(value := getattr(config, name, ""), str) and value}


def find_factories(config: Any, folders: Sequence[str] | None) -> None:
    """Import the modules of the factories that a config names; see :func:`find_factory`.

    Raises:
        AgentError: for a name of another form, or of nothing that can be called.
        GameError: if a module cannot be imported.
    """
    for setting, name in factories_of(config).items():
        find_factory(setting, name, folders)


class OwnFeatures(nn.Module):
    """An encoder in place of :class:`~mlbits.agents.networks.features.Features`: one vector per observation.

    Args:
        setting: the setting that names the factory.
        factory: the factory, or its name.
        space: observation space of a seat.
        generator: the source of initial weights.
        extra: width of an additional vector, appended to the features.

    Attributes:
        is_index: [False].
        widths: [d + extra].
        fan_in: d + extra.

    Raises:
        AgentError: if the factory or its module is not as it has to be; the message says what it got and what it wants.
        GameError: if its module cannot be imported.
    """

    def __init__(
        self, setting: str, factory: str | Factory, space: gym.Space[Any], generator: torch.Generator, extra: int = 0
    ) -> None:
        super().__init__()
        self.encoder = _made(setting, factory, generator, observation_space=space)
        name, out = _name(factory), _tried(setting, factory, self.encoder, space)
        if not _is_rows(out, 2):
            raise AgentError(f"{setting}: {name} maps {_shape(space)} to {_got(out)}; wanted float32 [2, d]")
        self.is_index, self.widths = [False], [out.shape[1] + extra]
        self.fan_in = self.widths[0]

    def forward(self, obs: Any, extra: Tensor | None = None) -> list[Tensor]:
        """The features [N, d] of N observations, with the additional vector behind them if there is one."""
        features: Tensor = self.encoder(obs)
        return [features if extra is None else torch.cat([features, extra], 1)]


AnyFeatures = Features | OwnFeatures


def features_of(encoder: str, space: gym.Space[Any], generator: torch.Generator, extra: int = 0) -> AnyFeatures:
    """The features of an agent's network: mlbits' own, or those of the encoder with this name."""
    if not encoder:
        return Features(space, generator, extra)
    return OwnFeatures("encoder", encoder, space, generator, extra)


def own_network(
    factory: str | Factory, space: gym.Space[Any], outputs: int, generator: torch.Generator, *, values: bool
) -> nn.Module:
    """A whole network of one's own.

    Args:
        factory: the factory, or its name.
        space: observation space of a seat.
        outputs: width of its output.
        generator: the source of initial weights.
        values: whether it also gives values [N].

    Raises:
        AgentError: as :class:`OwnFeatures` does.
        GameError: if its module cannot be imported.
    """
    network = _made("model", factory, generator, observation_space=space, outputs=outputs)
    out = _tried("model", factory, network, space)
    head, value = out if values and isinstance(out, tuple) and len(out) == 2 else (out, None)
    good = _is_rows(head, 2) and head.shape[1] == outputs
    good = good and (not values or (isinstance(value, Tensor) and value.shape == (2,) and value.dtype == torch.float32))
    if not good:
        wanted = f"float32 [2, {outputs}]"
        wanted = f"a pair, {wanted} and values float32 [2]" if values else wanted
        raise AgentError(f"model: {_name(factory)} maps {_shape(space)} to {_got(out)}; wanted {wanted}")
    return network


def _made(setting: str, factory: str | Factory, generator: torch.Generator, **arguments: Any) -> nn.Module:
    """What the factory makes, with torch's global generator seeded meanwhile."""
    name, found = _name(factory), find_factory(setting, factory) if isinstance(factory, str) else factory
    wanted = [*arguments, "generator"]
    try:
        declared = inspect.signature(found).parameters
    except (TypeError, ValueError):
        declared = {}  # type: ignore[assignment]
    required = [key for key, part in declared.items() if part.default is part.empty and part.kind not in (2, 4)]
    if not set(required) <= set(wanted) or not set(wanted) <= set(declared):
        raise AgentError(f"{setting}: {name} takes ({', '.join(declared)}); wanted the arguments {', '.join(wanted)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        module = found(**arguments, generator=generator)
    if not isinstance(module, nn.Module):
        raise AgentError(f"{setting}: {name} gave {type(module).__name__}; wanted a torch.nn.Module")
    return module


def _tried(setting: str, factory: str | Factory, module: nn.Module, space: gym.Space[Any]) -> Any:
    """The output for two observations of zeros."""
    try:
        with torch.no_grad():
            return module(_zeros(space))
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise AgentError(f"{setting}: {_name(factory)} fails on observations {_shape(space)} ({said})") from None


def _zeros(space: gym.Space[Any]) -> Any:
    layout = observation_layout(space)
    rows: Any = np.zeros((2, *layout.shape), layout.dtype)
    if layout.keys is not None:
        return {key: torch.from_numpy(np.ascontiguousarray(rows[key])) for key in layout.keys}
    return torch.from_numpy(rows[..., 0] if layout.scalar else rows)


def _is_rows(out: Any, rows: int) -> bool:
    return isinstance(out, Tensor) and out.dim() == 2 and len(out) == rows and out.dtype == torch.float32


def _name(factory: str | Factory) -> str:
    return factory if isinstance(factory, str) else getattr(factory, "__name__", "the factory")


def _shape(space: gym.Space[Any]) -> str:
    return _got(_zeros(space))


def _got(value: Any) -> str:
    """A value's type and shape in short."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_got(part)}" for key, part in value.items()) + "}"
    return f"({', '.join(map(_got, value))})" if isinstance(value, tuple) else type(value).__name__
