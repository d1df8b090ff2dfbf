"""The Agent protocol (act on rows of observations, learn from experience, save and load its state) and its data types.

Agents know tensors and spaces, not individual games. ``act`` gets N rows (copies x seats, flattened); ``learn`` gets
experience of whole batches, with leading axes [T, B, P].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.game import Game

F = TypeVar("F")


class AgentError(MlbitsError, ValueError):
    """An agent's setting that is out of range, or a space that the agent cannot handle."""


class DivergedError(AgentError):
    """A number computed in learning that is not finite.

    Args:
        quantity: what the number is.
        value: the number.
        where: text to add, as in "for leaf 3".
    """

    def __init__(self, quantity: str, value: float, where: str = "") -> None:
        self.quantity, self.value = quantity, value
        super().__init__(f"{quantity}: got {value:g} {where}".rstrip() + "; wanted a finite number")


class Decision(NamedTuple):
    """An agent's decisions for N rows.

    Attributes:
        action: the environment's action, [N] int64, [N, k] int64 or [N, k] float32.
        sample: the draw before it was scaled and clipped, used in learning (else the action itself).
        log_prob: log probability (density) of ``sample``, [N]; None for agents that learn without it.
        notes: what the agent wants back with this step when it learns, by name, [N, ...]; None for nothing.
        memory: what an agent with memory remembers from here on, float32 [N, M]; None for any other.
    """

    action: Tensor
    sample: Tensor
    log_prob: Tensor | None
    notes: Mapping[str, Tensor] | None = None
    memory: Tensor | None = None


class Positions(NamedTuple):
    """The positions behind N rows of observations, for agents that plan: states that rules can continue.

    Attributes:
        game: the game; its rules step the states.
        params: its parameters, a structured array [1] for all copies or [B] for one each.
        states: the states of the rows' copies, uint8 [N, state bytes] on the batch's device; a copy.
        copy: numbers of the rows' copies, int64 [N].
        seat: the rows' seats, int64 [N].
        acts: bool [N], which rows have a decision; the others pass.
        obs: [N, ...] or a dict of those.
        legal_mask: bool [N, A], or None.
    """

    game: Game
    params: np.ndarray
    states: Tensor
    copy: Tensor
    seat: Tensor
    acts: Tensor
    obs: Any
    legal_mask: Tensor | None

    def rows(self, index: Tensor) -> Positions:
        """The rows ``index`` [n] alone."""
        mask = None if self.legal_mask is None else self.legal_mask[index]
        return self._replace(
            states=self.states[index], copy=self.copy[index], seat=self.seat[index], acts=self.acts[index],
            obs=pick(self.obs, index), legal_mask=mask,
        )  # fmt: skip

    def params_of(self, index: Tensor) -> np.ndarray:
        """The parameters of the rows ``index`` [n]: a structured array [1] or [n]."""
        return self.params if len(self.params) == 1 else self.params[self.copy[index].cpu().numpy()]


class RolloutSpec(NamedTuple):
    """The experience that an on-policy agent asks for.

    Attributes:
        num_steps: steps T of each copy; with ``whole_episodes`` the maximum length of an episode.
        whole_episodes: whether every rollout resets all copies and holds one episode of each (a copy whose episode is
            over is not active afterwards), instead of a window of ongoing play.
        min_rows: minimum number of steps, over copies and seats, in a rollout.
    """

    num_steps: int
    whole_episodes: bool
    min_rows: int = 1


class ReplaySpec(NamedTuple):
    """The experience that an off-policy agent asks for: a replay buffer, kept by the loop.

    Attributes:
        num_steps: steps of each copy between two calls of ``learn``.
        capacity: number of transitions kept, over copies and seats.
        priority_exponent: alpha of prioritised replay; 0 samples uniformly.
        hindsight: which achieved goals stand in for desired ones (:mod:`mlbits.agents.memory.hindsight`), or "none".
        hindsight_goals: for one transition with its own goal, how many with another.
    """

    num_steps: int
    capacity: int
    priority_exponent: float = 0.0
    hindsight: str = "none"
    hindsight_goals: float = 4.0


class OutcomeSpec(NamedTuple):
    """The experience that an agent asks for which learns from outcomes: finished episodes, kept by the loop.

    Attributes:
        num_steps: steps of each copy between two calls of ``learn``.
        capacity: number of positions kept, over copies and seats.
        discount: of the rewards in an outcome, per step of the environment.
        trace: lambda, from outcomes alone (1) to the decisions' own values alone (0), their note ``value``.
    """

    num_steps: int
    capacity: int
    discount: float = 1.0
    trace: float = 1.0


class DatasetSpec(NamedTuple):
    """The experience that an offline agent asks for: a run's dataset, whole, each time it learns.

    Attributes:
        updates_per_iteration: gradient steps of one call of ``learn``.
    """

    updates_per_iteration: int


class OnHost(NamedTuple):
    """What the host knows of a rollout whose tensors are on a GPU.

    Attributes:
        terminated: bool [T, B], of the steps that were played.
        truncated: bool [T, B], likewise.
        num_active: how many entries of the rollout's ``active`` are True; None if it has none.
        continues: whether the first observation is known to be the last one of the previous rollout.
    """

    terminated: np.ndarray
    truncated: np.ndarray
    num_active: int | None = None
    continues: bool = False

    @property
    def num_cut(self) -> int:
        """In how many steps of copies an episode was truncated and not terminated."""
        return int(np.count_nonzero(self.truncated & ~self.terminated))


@dataclass(frozen=True, slots=True)
class Rollout:
    """T steps of B copies with P seats. Steps at which ``active`` is False are not the learner's.

    Attributes:
        obs: [T, B, P, ...] or a dict of those.
        last_obs: the observation after the last step, [B, P, ...].
        final_obs: last observation of the episodes that ended in a step, [T, B, P, ...] (stale elsewhere).
        sample: the draws, [T, B, P, ...].
        log_prob: their log probabilities when drawn, [T, B, P].
        reward: each seat's own reward, [T, B, P].
        terminated: bool [T, B].
        truncated: bool [T, B].
        legal_mask: bool [T, B, P, A], or None.
        active: bool [T, B, P], or None where every seat acts in every step and is the learner's.
        last_mask: bool [B, P, A], the legal actions after the last step, or None.
        last_active: bool [B, P], who acts after the last step; None if no decision waits for its seat's next turn.
        final_active: bool [T, B, P], who would have acted at ``final_obs`` where an episode was truncated (stale
            elsewhere); None if no decision waits.
        carried: bool [B, P], seats for which row 0 is not a step, but the decision that was open at the end of the
            previous rollout, made by the policy of that time (see below); None if row 0 is an ordinary step.
        notes: the notes of the learner's decisions by name, [T, B, P, ...] (0 where it made none); None if it has none.
        memory: what the learner remembered before each step, [T, B, P, M]; None for an agent without memory.
        last_memory: what it remembers at ``last_obs``, [B, P, M], or None.
        final_memory: what it remembered at ``final_obs``, [T, B, P, M] (stale elsewhere), or None.
        host: what the host knows of the tensors, if they are on a GPU: it spares waits for the device. None if unknown.

    In games in which seats wait for their turns, windows of ongoing play hold only settled decisions
    (:mod:`~mlbits.agents.maths.open_decisions`): for a seat that still waits when the window ends, its last decision is
    not active, its rewards come with the next rollout's row 0, and ``last_obs`` and ``last_mask`` are that decision's
    own. Only rollouts for a replay buffer and whole episodes have ``last_active`` and ``final_active``, and hold all.
    """

    obs: Any
    last_obs: Any
    final_obs: Any
    sample: Tensor
    log_prob: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    legal_mask: Tensor | None
    active: Tensor | None
    last_mask: Tensor | None = None
    last_active: Tensor | None = None
    final_active: Tensor | None = None
    carried: Tensor | None = None
    notes: Mapping[str, Tensor] | None = None
    memory: Tensor | None = None
    last_memory: Tensor | None = None
    final_memory: Tensor | None = None
    host: OnHost | None = None

    def of_copies(self, first: int, last: int) -> Rollout:
        """The part of copies ``first`` to ``last`` - 1, without copying."""
        if first == 0 and last == self.reward.shape[1]:
            return self
        steps, ends = (slice(None), slice(first, last)), slice(first, last)
        return Rollout(
            obs=pick(self.obs, steps),
            last_obs=pick(self.last_obs, ends),
            final_obs=pick(self.final_obs, steps),
            sample=self.sample[steps],
            log_prob=self.log_prob[steps],
            reward=self.reward[steps],
            terminated=self.terminated[steps],
            truncated=self.truncated[steps],
            legal_mask=None if self.legal_mask is None else self.legal_mask[steps],
            active=None if self.active is None else self.active[steps],
            last_mask=None if self.last_mask is None else self.last_mask[ends],
            last_active=None if self.last_active is None else self.last_active[ends],
            final_active=None if self.final_active is None else self.final_active[steps],
            carried=None if self.carried is None else self.carried[ends],
            notes=None if self.notes is None else {name: note[steps] for name, note in self.notes.items()},
            memory=None if self.memory is None else self.memory[steps],
            last_memory=None if self.last_memory is None else self.last_memory[ends],
            final_memory=None if self.final_memory is None else self.final_memory[steps],
        )

    def flatten(self) -> FlatRows:
        """The rows at which the learner acted, in the order of steps, then copies, then seats; N of T * B * P.

        Nothing is copied if all rows are the learner's.

        Example:
            >>> one, two = torch.ones(2, 1, 1), torch.tensor([[[False]], [[True]]])
            >>> ends = torch.zeros(2, 1, dtype=torch.bool)
            >>> flat = Rollout(one, one[0], one, one, one, one, ends, ends, None, active=two).flatten()
            >>> flat.index.tolist(), tuple(flat.obs.shape), flat.of(torch.tensor([[[3.0]], [[5.0]]])).tolist()
            ([1], (1,), [5.0])
        """
        index = None if self.active is None else self._active_places()
        obs, mask = rows(self.obs, 3), None if self.legal_mask is None else self.legal_mask.flatten(0, 2)
        sample, log_prob = self.sample.flatten(0, 2), self.log_prob.flatten()
        if index is not None:
            obs, sample, log_prob = pick(obs, index), pick(sample, index), pick(log_prob, index)
            mask = None if mask is None else pick(mask, index)
        return FlatRows(obs, mask, sample, log_prob, index)

    def _active_places(self) -> Tensor:
        """Where ``active`` is True among all T * B * P, int64 [N]."""
        assert self.active is not None
        return true_places(self.active.flatten(), None if self.host is None else self.host.num_active)[0]

    def cut_steps(self) -> tuple[Tensor, Tensor]:
        """The steps and copies in which an episode was truncated and not terminated, int64 [n] both."""
        step, copy = true_places(self.truncated & ~self.terminated, None if self.host is None else self.host.num_cut)
        return step, copy


@dataclass(frozen=True, slots=True)
class FlatRows:
    """The N rows of a rollout at which the learner acted, over steps, copies and seats.

    Attributes:
        obs: [N, ...] or a dict of those.
        mask: the legal actions, bool [N, A], or None.
        sample: the draws, [N, ...].
        log_prob: their log probabilities when drawn, [N].
        index: positions of the rows among all T * B * P, int64 [N], ascending; None if they are all of them.
    """

    obs: Any
    mask: Tensor | None
    sample: Tensor
    log_prob: Tensor
    index: Tensor | None

    def of(self, tensor: Tensor) -> Tensor:
        """The same rows [N, ...] of another tensor [T, B, P, ...] of the rollout."""
        flat = tensor.flatten(0, 2)
        return flat if self.index is None else flat.index_select(0, self.index)


class Agent(Protocol):
    """The methods that the training loop calls.

    An agent that plans has, beside ``act`` or in its place, ``plan(positions, generator, *, greedy=False) -> Decision``
    (:class:`Positions`), which is then called instead; its registry entry says so (``plans``).

    An agent with memory has ``memory_size``, M: how many numbers it remembers. ``act`` then takes and returns them:
    ``act(obs, legal_mask, generator, *, greedy=False, memory) -> Decision``, with ``memory`` float32 [N, M] (zeros at
    the start of an episode), and the next ones in ``Decision.memory``. The agent keeps none of it itself: whoever plays
    keeps a row for each seat of each copy, hands it over at the seat's turns (not while it passes), and sets it back to
    zeros when the copy's episode ends. :class:`~mlbits.selfplay.memories.Memories` does this, and
    :func:`~mlbits.selfplay.lineup.decide` uses it wherever agents act. What is a function of one observation alone
    (``action_probabilities``, ``policy_and_value``, ``state_values``) such an agent lacks: :func:`memoryless`.

    An agent that learns with the help of a file has ``prepare_to_learn()``, which reads it, or raises an AgentError. A
    run calls it before it makes its folder; acting never does. If it then acts otherwise than where it is only played
    (for goals of its own, or by many members at once), ``outside_training()`` is the agent as others meet it
    (:class:`~mlbits.agents.players.OutsideTraining`): evaluations of a run ask for it, and an agent that was loaded is
    so from the start.

    An agent whose network can guide a search has ``policy_and_value(obs, legal_mask) -> (logits [N, A], values [N])``.

    Exact measures of exploitability also need ``action_probabilities(obs, legal_mask, *, greedy=False)`` of an agent
    with Discrete actions: pi(a|s), float64 [N, A].

    Off-policy evaluation with weights needs, of an agent whose actions are not Discrete,
    ``action_log_prob(obs, legal_mask, action) -> [N]``: the log density of actions as they are played, in the action's
    units; where clipping puts probability on a bound, the log of that probability.
    ``draw_log_prob(obs, legal_mask, draw) -> [N]`` is that of draws (:attr:`Decision.sample`), for data that recorded
    them with their ``log_prob``.

    An agent that can learn in shards (:mod:`mlbits.agents.kernels.shards`) has ``in_shards = True``: it takes over all
    of them the figures that its decisions hang on. Gradients are summed by its FlatAdam.

    An on-policy agent that can learn from the play of the policy before its last update (:mod:`mlbits.selfplay.actors`)
    has ``learns_behind = True``: it weighs by ``Rollout.log_prob``, with which the actions were drawn.

    Attributes:
        experience: what it learns from, or None for an agent that does not learn.
    """

    @property
    def experience(self) -> RolloutSpec | ReplaySpec | OutcomeSpec | DatasetSpec | None:
        """The experience that :meth:`learn` needs."""

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose actions for N rows of observations; ``greedy`` takes the most probable action instead of a draw."""

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Learn from a :class:`Rollout`, after a ReplaySpec from the run's replay buffer, after a DatasetSpec from its
        dataset.

        ``generator`` is on the agent's device; draw with ``device=generator.device``. ``progress`` 0..1 is the fraction
        of the run (in a league, of the learner's lifetime) that is over. Returns metrics by name, numbers or tensors.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to act and to continue learning, as tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""


def memory_size(agent: Any) -> int:
    """How many numbers an agent remembers from step to step, M; 0 for an agent without memory."""
    return getattr(agent, "memory_size", 0)


class _Memoryless:
    """The descriptor behind :func:`memoryless`."""

    def __init__(self, function: Any) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, agent: Any, owner: Any = None) -> Any:
        if agent is not None and memory_size(agent):
            raise AttributeError(f"{type(agent).__name__}: has no {self.function.__name__}, because it has a memory")
        return self.function.__get__(agent, owner)


def memoryless(function: F) -> F:
    """Mark a method of agents that is a function of the observation alone: an agent with memory does not have it.

    Example:
        >>> class Remembers:
        ...     memory_size = 8
        ...     @memoryless
        ...     def state_values(self, obs): ...
        >>> hasattr(Remembers(), "state_values")
        False
    """
    return _Memoryless(function)  # type: ignore[return-value]


def rows(value: Any, lead: int) -> Any:
    """Flatten the first ``lead`` axes of a tensor, or of each tensor of a dict."""
    if isinstance(value, dict):
        return {key: part.flatten(0, lead - 1) for key, part in value.items()}
    return value.flatten(0, lead - 1)


def pick(value: Any, index: Any) -> Any:
    """Entries ``index`` of a tensor, or of each tensor of a dict."""
    if isinstance(value, dict):
        return {key: pick(part, index) for key, part in value.items()}
    if isinstance(index, Tensor) and index.dim() == 1 and index.dtype == torch.int64:
        return value.index_select(0, index)  # three times as fast as value[index] on a CPU
    return value[index]


def true_places(flags: Tensor, count: int | None = None) -> tuple[Tensor, ...]:
    """Where flags are True, as ``flags.nonzero(as_tuple=True)``, in the order of the flattened flags.

    Args:
        flags: bool, of any shape.
        count: how many are True, so that the host need not wait for the device; None if unknown.

    Example:
        >>> [part.tolist() for part in true_places(torch.tensor([[False, True], [True, False]]), count=2)]
        [[0, 1], [1, 0]]
    """
    if count is None:
        return flags.nonzero(as_tuple=True)
    # A stable sort: torch 2.6 has no ``nonzero_static`` on GPUs.
    place = flags.flatten().to(torch.uint8).sort(descending=True, stable=True).indices[:count]
    places = []
    for size in reversed(flags.shape):
        places.append(place % size)
        place = place // size
    return tuple(reversed(places))


def placed(value: Any, device: torch.device | str) -> Any:
    """A tensor, or each tensor of a dict, on a device."""
    return {key: placed(part, device) for key, part in value.items()} if isinstance(value, dict) else value.to(device)


def network_generator(seed: int) -> torch.Generator:
    """The random generator of a network's initial weights, independent of the global one."""
    return torch.Generator().manual_seed(seed)


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with a prefix before each name."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def unprefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a state dict whose names have a prefix, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(f"{prefix}.")}


def split_optimizers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state without what its optimisers keep, which suffices for acting; and what they keep.

    An optimiser's tensors have a part of their name that ends in "optimizer", as in "value_optimizer.first".

    Example:
        >>> acting, kept = split_optimizers({"actor.head": torch.ones(1), "actor_optimizer.steps": torch.ones(1)})
        >>> list(acting), list(kept)
        (['actor.head'], ['actor_optimizer.steps'])
    """
    kept = {name for name in state if any(part.endswith("optimizer") for part in name.split("."))}
    return {n: v for n, v in state.items() if n not in kept}, {n: v for n, v in state.items() if n in kept}


def load_weights(networks: Mapping[str, nn.Module], state: Mapping[str, Tensor]) -> None:
    """Load each network's weights from the part of a state dict that stands under its name.

    Raises:
        AgentError: if names or shapes are not those of the network.
    """
    for name, network in networks.items():
        try:
            network.load_state_dict(unprefixed(name, state))
        except RuntimeError as error:
            lines = str(error).splitlines()
            raise AgentError(f"weights do not fit this agent's {name}: {lines[-1].strip()}") from None


def content_hash(agent: Agent) -> str:
    """A hash of an agent's class and of what it acts with, 64 hexadecimal digits: the same for copies.

    Learning changes it.

    Bots, which have no tensors, are distinguished by their class and config.
    """
    kind = type(agent)
    found = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__} {getattr(agent, 'config', '')!r}".encode())
    for name, value in sorted(split_optimizers(agent.state_dict())[0].items()):
        plain = value.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
