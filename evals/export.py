"""A run's agent as a model that plays without mlbits: ONNX, or TorchScript.

The file is the agent's greedy play as one function of a batch of observations (first axis: any number of rows). Inputs
are the observation, named ``obs``, or one input for each key of a Dict; and ``action_mask``, bool [N, A], where the
environment masks actions. Outputs are

| output | of which agents | what it is |
|---|---|---|
| action | all | the action that the agent takes, in the environment's form: int64 [N] or [N, k], float32 [N, k] |
| probabilities | those with a policy over Discrete actions | of each action, float32 [N, A]; sample from them for play that is not greedy |
| distribution | actor-critics, other actions | MultiDiscrete: logits of each choice, one after another, [N, sum]; Box: means, then log standard deviations, [N, 2 k], in units in which the bounds are -1 and 1 |
| q_values | Q-learning | Q of each action, [N, A], without the mask |
| value | those with a critic | the value of the state, [N] |

The plain code is exported, without kernels and in float32. What was written is read back and compared with the agent on
random observations, in one batch and one by one.

Example:
    report = export_run("runs/pole", onnx="pole.onnx")
    session = onnxruntime.InferenceSession("pole.onnx")
    action, probabilities, value = session.run(None, {"obs": obs[None]})
"""  # noqa: E501

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from mlbits.agents.agent import AgentError, memory_size
from mlbits.agents.maths.action_distributions import masked_log_softmax
from mlbits.agents.networks.orders import OrderDistribution
from mlbits.agents.registry import agent_entry
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.doors.gymnasium_batch import AnyBatch, open_batch
from mlbits.selfplay.population.members import policy_agent
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.folder import read_settings
from mlbits.selfplay.runs.saved_agents import load_agent
from mlbits.version import __version__

ABOUT = "mlbits"  # the name of the metadata in a file: a JSON object
TOLERANCE = 1e-5  # largest difference from the agent, relative to numbers above 1
_CHECKED, _TRACED, _SEED = 100, 3, 0


class ExportError(MlbitsError, RuntimeError):
    """An agent that cannot be exported, or a file that does not compute what the agent does."""


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of an exported model.

    Attributes:
        inputs: names, and an example of each with rows as the first axis.
        outputs: names.
        keys: the keys of a Dict of observations, or None for one observation.
        masked: whether the last input is a mask.
    """

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    keys: tuple[str, ...] | None
    masked: bool


class Exported(nn.Module):
    """An agent's greedy play as a module: tensors in, a tuple of tensors out.

    Args:
        agent: the agent.
        action_space: one seat's.
        keys: the keys of a Dict of observations, or None.
        masked: whether the last input is a mask.
    """

    def __init__(self, agent: Any, action_space: gym.Space[Any], keys: tuple[str, ...] | None, masked: bool) -> None:
        super().__init__()
        self._agent = [agent]  # in a list: it is no module, but holds some
        self._discrete, self._keys, self._masked = isinstance(action_space, spaces.Discrete), keys, masked

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of :meth:`named`."""
        return tuple(self.named(*inputs).values())

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs by name; see the module's docstring."""
        mask = inputs[-1] if self._masked else None
        parts = inputs[: len(inputs) - self._masked]
        obs: Any = parts[0] if self._keys is None else dict(zip(self._keys, parts, strict=True))
        agent: Any = self._agent[0]
        found = {"action": agent.act(obs, mask, torch.Generator(), greedy=True).action}
        if hasattr(agent, "outputs"):
            outputs: dict[str, Tensor] = agent.outputs(obs, self._discrete)
            return found | outputs
        if hasattr(agent, "values") and hasattr(agent, "state_values"):
            return found | {"q_values": agent.values(obs).float(), "value": agent.state_values(obs, mask).float()}
        if self._discrete and hasattr(agent, "policy_and_value"):
            with contextlib.suppress(AgentError):  # of an agent without a critic
                logits, value = agent.policy_and_value(obs, mask)
                return found | {"probabilities": masked_log_softmax(logits, mask).exp(), "value": value}
        if self._discrete and hasattr(agent, "action_probabilities"):
            found["probabilities"] = agent.action_probabilities(obs, mask).float()
        return found | (_of_core(agent, obs) if hasattr(agent, "core") and not self._discrete else {})


def _of_core(agent: Any, obs: Any) -> dict[str, Tensor]:
    """What an actor-critic gives for actions that are not Discrete."""
    core, scale = agent.core, getattr(agent, "reward_scale", None)
    parameters, value = core.network(core.prepare(obs))
    return {"distribution": parameters, "value": value if scale is None else value * scale.unit}


def export_run(
    folder: str | Path, *, onnx: str | Path | None = None, torchscript: str | Path | None = None
) -> dict[str, Any]:
    """Write a run's agent as a model, and compare what was written with the agent.

    Args:
        folder: the run's folder; its newest whole checkpoint is exported.
        onnx: the file to write as ONNX, or None.
        torchscript: the file to write as TorchScript, or None.

    Returns:
        Plain data: about (the metadata), and "onnx" and "torchscript", each {path, checked, largest_difference} or
        None; checked is False for ONNX where onnxruntime is not installed.

    Raises:
        ExportError: if the agent cannot be exported, a package is missing, a file cannot be written, or a file does not
            compute what the agent does.
        RunError: if the folder is no run.
        CheckpointError: if it has no usable checkpoint.
    """
    if onnx is None and torchscript is None:
        raise ExportError("onnx, torchscript: got neither; wanted a file to write")
    settings = read_settings(folder)
    _check_exportable(settings)
    agent, _, state = load_agent(folder)
    with plain_code():
        plain, _, _ = load_agent(folder)
    for other in (agent, plain):
        _check_network(settings, other)
    batch = open_batch(settings.env, 1, settings=settings.env_settings)
    agent, plain = (_best_member(one, batch) for one in (agent, plain))
    try:
        signature, module = _module(plain, batch)
        reference = plain if getattr(settings.agent_config, "precision", "") == "bfloat16" else agent
        played = Exported(reference, batch.action_space, signature.keys, signature.masked)
        examples = random_inputs(batch, signature, _CHECKED)
        about = _about(settings, state, batch, signature)
    finally:
        batch.close()
    report: dict[str, Any] = {"about": about, "onnx": None, "torchscript": None}
    if onnx is not None:
        run = _write_onnx(module, signature, about, Path(onnx))
        report["onnx"] = _checked(Path(onnx), run, played, signature, examples)
    if torchscript is not None:
        run = _write_torchscript(module, signature, about, Path(torchscript))
        report["torchscript"] = _checked(Path(torchscript), run, played, signature, examples)
    return report


def _check_exportable(settings: Settings) -> None:
    if agent_entry(settings.agent).plans:
        raise ExportError(
            f"{settings.agent} searches by the rules of {settings.env} when it plays, which a model's file cannot do; "
            "wanted the run of an agent that plays by its network or table alone, such as ppo or dqn"
        )
    if getattr(settings.agent_config, "critic_weighted", False):
        raise ExportError(
            f"{settings.agent}: plays actions drawn at random and weighted by its critic (critic_weighted); wanted a "
            "run that plays by its policy alone"
        )


def _best_member(agent: Any, batch: AnyBatch) -> Any:
    """The member of a population by which it acts, as an agent of its own; other agents as they are."""
    if not hasattr(agent, "member_weights"):
        return agent
    weights = agent.member_weights()[agent.best].cpu()
    return policy_agent(agent.policies, weights, batch.observation_space, batch.action_space)


def _check_network(settings: Settings, agent: Any) -> None:
    if hasattr(agent, "shown_goal"):
        raise ExportError(
            f"{settings.agent}: keeps its episode's goal as a memory, which a file that maps one observation to an "
            "action cannot do; wanted the run of another agent, such as sac"
        )
    if memory_size(agent):
        raise ExportError(
            f"{settings.agent}: remembers its episode (--agent.memory), which a file that maps one observation to an "
            "action cannot do; wanted a run without memory"
        )
    if isinstance(getattr(getattr(agent, "core", None), "distribution", None), OrderDistribution):
        raise ExportError(
            f"{settings.agent}: its order network decides one order after another, in a loop that is not exported; "
            "wanted a run with --agent.network mlp, or of another environment"
        )


def _module(agent: Any, batch: AnyBatch) -> tuple[Signature, Exported]:
    """The module of an agent, and its signature, with examples of three rows."""
    obs = batch.obs
    keys = tuple(obs) if isinstance(obs, dict) else None
    named = dict(obs) if isinstance(obs, dict) else {"obs": obs}
    mask = getattr(batch, "legal_mask", None)
    named |= {} if mask is None else {"action_mask": mask}
    inputs = {
        name: part[:, 0].cpu()[:1].repeat(_TRACED, *[1] * (part.dim() - 2)).clone() for name, part in named.items()
    }
    module = Exported(agent, batch.action_space, keys, mask is not None).eval()
    _freeze(agent, set())
    with torch.no_grad():
        outputs = tuple(module.named(*inputs.values()))
    return Signature(inputs, outputs, keys, mask is not None), module


def _freeze(thing: Any, seen: set[int]) -> None:
    """Let no parameter of an agent ask for gradients; tracing refuses those that do."""
    if id(thing) in seen or type(thing).__module__.partition(".")[0] in ("builtins", "numpy", "gymnasium"):
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        thing.requires_grad_(False).eval()
    elif isinstance(thing, nn.Parameter):
        thing.requires_grad_(False)
    elif hasattr(thing, "__dict__"):
        for part in vars(thing).values():
            for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else [part]:
                _freeze(one, seen)


def random_inputs(batch: AnyBatch, signature: Signature, count: int) -> dict[str, Tensor]:
    """Inputs drawn at random: observations from the space, and masks with at least one legal action, [count, ...]."""
    space: Any = batch.observation_space
    space.seed(_SEED)
    drawn = [space.sample() for _ in range(count)]
    found = {}
    for name, example in signature.inputs.items():
        if signature.masked and name == "action_mask":
            random = np.random.default_rng(_SEED)
            mask = random.random((count, *example.shape[1:])) < 0.5
            mask[np.arange(count), random.integers(0, mask.shape[1], count)] = True
            found[name] = torch.from_numpy(_each_choice(mask, batch.action_space))
            continue
        parts = np.stack([np.asarray(one if signature.keys is None else one[name]) for one in drawn])
        found[name] = torch.from_numpy(parts).reshape(count, *example.shape[1:]).to(example.dtype)
    return found


def _each_choice(mask: NDArray[np.bool_], space: gym.Space[Any]) -> NDArray[np.bool_]:
    """A mask with a legal option for each choice of a MultiDiscrete action: its first."""
    if isinstance(space, spaces.MultiDiscrete):
        mask[:, np.cumsum([0, *space.nvec[:-1]])] = True
    return mask


def _about(settings: Settings, state: Mapping[str, Any], batch: AnyBatch, signature: Signature) -> dict[str, Any]:
    """The metadata of the files."""
    shapes = {
        name: {"dtype": str(part.dtype).removeprefix("torch."), "shape": ["batch", *part.shape[1:]]}
        for name, part in signature.inputs.items()
    }
    return {
        "mlbits": __version__,
        "agent": settings.agent,
        "env": settings.env,
        "env_settings": settings.env_settings,
        "observation_space": " ".join(str(batch.observation_space).split()),
        "action_space": " ".join(str(batch.action_space).split()),
        "inputs": shapes,
        "outputs": list(signature.outputs),
        "env_steps": state.get("env_steps"),
        "seed": settings.run.seed,
    }


Run = Callable[[Sequence[Tensor]], list[NDArray[Any]]]


def _write_onnx(module: Exported, signature: Signature, about: Mapping[str, Any], path: Path) -> Run | None:
    """Write a file; returns a function that runs it, or None if onnxruntime is not installed."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ExportError('onnx: onnxscript is not installed; wanted pip install "mlbits[onnx]"') from None
    rows = torch.export.Dim("batch")
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            module, tuple(signature.inputs.values()), dynamo=True, verbose=False,
            input_names=list(signature.inputs), output_names=list(signature.outputs),
            dynamic_shapes=(tuple({0: rows} for _ in signature.inputs),),
        )  # fmt: skip
    program.model.metadata_props[ABOUT] = json.dumps(about)
    with _writing("onnx", path):
        program.save(str(path), external_data=False)
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}  # an input on which nothing depends is left out

    def run(values: Sequence[Tensor]) -> list[NDArray[Any]]:
        named = zip(signature.inputs, values, strict=True)
        return list(session.run(None, {name: value.numpy() for name, value in named if name in taken}))

    return run


def _write_torchscript(module: Exported, signature: Signature, about: Mapping[str, Any], path: Path) -> Run:
    """Write a file; returns a function that runs it."""
    with _quiet(), torch.no_grad():
        traced = torch.jit.trace(module, tuple(signature.inputs.values()), check_trace=False)
    with _quiet(), _writing("torchscript", path):
        torch.jit.save(traced, str(path), {ABOUT: json.dumps(about)})
        read = torch.jit.load(str(path))
    return lambda values: [part.numpy() for part in read(*values)]


def _checked(
    path: Path, run: Run | None, played: Exported, signature: Signature, examples: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Compare a file with the agent: in one batch, and the first rows one by one.

    Raises:
        ExportError: if they differ by more than the tolerance.
    """
    if run is None:
        return {"path": str(path), "checked": False, "largest_difference": None}
    values = list(examples.values())
    with torch.no_grad():
        wanted = [part.numpy() for part in played(*values)]
    together = run(values)
    singly = [run([value[k : k + 1] for value in values]) for k in range(5)]
    single = [np.concatenate([one[k] for one in singly]) for k in range(len(wanted))]
    sure = _sure(dict(zip(signature.outputs, wanted, strict=True)), examples)
    largest = 0.0
    for name, want, got, alone in zip(signature.outputs, wanted, together, single, strict=True):
        for found, rows in ((got, len(want)), (alone, 5)):
            if found.shape != want[:rows].shape:
                raise ExportError(f"{path}: its {name} has shape {found.shape}; the agent's has {want[:rows].shape}")
            apart = np.abs(found.astype(float) - want[:rows]) / np.maximum(1.0, np.abs(want[:rows].astype(float)))
            apart = apart[sure[:rows]] if name == "action" else apart
            largest = max(largest, float(apart.max(initial=0.0)))
    if not largest <= TOLERANCE:
        raise ExportError(f"{path}: differs from the agent by {largest:.2g}; wanted at most {TOLERANCE:g}")
    return {"path": str(path), "checked": True, "largest_difference": largest}


def _sure(wanted: Mapping[str, NDArray[Any]], examples: Mapping[str, Tensor]) -> NDArray[np.bool_]:
    """The rows in which rounding cannot change the best action, bool [N]."""
    count = len(wanted["action"])
    scores = wanted.get("probabilities", wanted.get("q_values"))
    if scores is None or scores.shape[1] < 2:
        return np.ones(count, bool)
    if "action_mask" in examples and scores.shape == tuple(examples["action_mask"].shape):
        scores = np.where(examples["action_mask"].numpy(), scores, -np.inf)
    best = np.sort(scores, 1)[:, -2:]
    sure: NDArray[np.bool_] = ~(best[:, 1] - best[:, 0] <= 2 * TOLERANCE * np.maximum(1.0, np.abs(best[:, 1])))
    return sure


@contextlib.contextmanager
def plain_code() -> Iterator[None]:
    """Make agents without kernels, which cannot be traced."""
    before = os.environ.get("MLBITS_KERNELS")
    os.environ["MLBITS_KERNELS"] = "0"
    try:
        yield
    finally:
        del os.environ["MLBITS_KERNELS"]
        if before is not None:
            os.environ["MLBITS_KERNELS"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own messages, and without distributions' checks of values, which cannot be traced."""
    from torch.distributions import Distribution

    logger, validates = logging.getLogger("torch.onnx"), Distribution._validate_args
    level = logger.level
    logger.setLevel(logging.ERROR)
    Distribution.set_default_validate_args(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        Distribution.set_default_validate_args(validates)


@contextlib.contextmanager
def _writing(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError
        raise ExportError(f"{name}: {path} cannot be written ({error}); wanted a writable file") from None
