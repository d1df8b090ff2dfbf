"""What agents that learn from their own search have in common: rounds, frozen policies, and one network that imitates.

The agent plays itself by its search. A network learns from the replay of finished games
(:mod:`~mlbits.agents.memory.outcomes`): its policy by cross-entropy on the actions that the search chose (for orders,
on the whole set of orders), its value by the squared error to the outcome, or to the search's own value.

Play is divided into rounds of equal length. The policies that the search samples from are frozen at the end of each
round, and kept; the value is always the newest. The first round (``warm_rounds``) is played without search, by the
initial policy, and only its value is learned: a search over an untrained value would imitate noise. A ``teacher``, a
bot, may play these rounds instead; then it is imitated, and the policy at their end is the initial one. A run that
starts from a trained agent has no such rounds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import (
    Agent,
    AgentError,
    Decision,
    OutcomeSpec,
    Positions,
    load_weights,
    pick,
    prefixed,
    unprefixed,
)
from mlbits.agents.best_response.leaves import discount_of
from mlbits.agents.best_response.policies import AgentPolicy
from mlbits.agents.best_response.transitions import Table, Transitions
from mlbits.agents.memory.outcomes import OutcomeReplay, Outcomes
from mlbits.agents.networks.actor_critic import ActorCriticCore
from mlbits.agents.networks.orders import OrderDistribution
from mlbits.agents.players import Player
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.game import Game
from mlbits.envs.core.schedules import Scheduled, value_at
from mlbits.envs.origins import import_name


@configuration(AgentError)
class SearchLearnerConfig:
    """Settings common to agents that learn from their own search."""

    num_steps: int = setting(32, "steps of each copy between two rounds of updates", low=1, high=1e6)
    round_steps: int = setting(128, "steps of each copy in a round, after which the policy is frozen", low=1, high=1e9)
    warm_rounds: int = setting(1, "first rounds without search, in which only values are learned", low=0, high=1e6)
    buffer_size: int = setting(20_000, "decisions kept to learn from", low=1, high=1e9)
    batch_size: int = setting(256, "decisions per gradient step", low=1, high=1e6)
    uses: float = setting(4.0, "how often each decision is sampled on average", low=0.01, high=1e4)
    learning_rate: Scheduled = setting(1e-3, "learning rate of Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(False, "decay the learning rate, if it is a number, linearly to 0 over the run")
    max_grad_norm: float = setting(1.0, "largest L2 norm of the gradient; larger ones are clipped", low=1e-9, high=1e9)
    discount: float = setting(1.0, "discount factor, gamma", low=0, high=1)
    value_coef: float = setting(1.0, "weight of the value loss (half the squared error)", low=0, high=1e3)
    outcome_weight: float = setting(
        1.0, "the value's target: 1 the game's outcome, 0 the search's own value, between them a mix", low=0, high=1
    )
    max_past: int = setting(32, "frozen policies kept; beyond that every second one is dropped", low=2, high=10_000)
    hidden: tuple[int, ...] = setting((64, 64), "widths of the hidden layers, as for ppo", low=1)
    network: Literal["auto", "mlp"] = setting(
        "auto", "auto uses the order network for orders on a graph and MLPs elsewhere; mlp always uses MLPs"
    )
    rollout_steps: int = setting(0, "steps of policy rollout before the value of a leaf", low=0, high=1e4)
    rollout_temperature: float = setting(0.75, "temperature of the policy in rollouts", low=0.01, high=100)
    rollout_top_p: float = setting(0.95, "rollouts draw from the most probable actions up to this", low=0.01, high=1)
    start: str = setting("", "folder of a trained agent's run to start from, with the same network; '' is random")
    games: str = setting("", "file of saved games (of the diplomacy package) to imitate first; '' is none")
    imitation_steps: int = setting(2000, "gradient steps on those games", low=1, high=1e9)
    teacher: str = setting("", "bot that plays the first rounds and is imitated in them; '' is the initial policy")


class NetworkSettings(NamedTuple):
    """The settings that an actor and a critic need (:class:`~mlbits.agents.networks.actor_critic.NetworkConfig`)."""

    hidden: tuple[int, ...]
    learning_rate: Scheduled
    max_grad_norm: float
    normalize_obs: bool = False
    log_std: float = 0.0


class Frozen(Player):
    """A policy that does not change: a copy of a network.

    Args:
        core: whose policy.
    """

    def __init__(self, core: ActorCriticCore) -> None:
        self.core = copy.copy(core)
        self.core.network = copy.deepcopy(core.network).requires_grad_(False)
        self.core.optimizer = None  # type: ignore[assignment]
        if isinstance(core.distribution, OrderDistribution):
            self.core.distribution = OrderDistribution(self.core.network.decoder)

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose actions for N rows."""
        return self.core.act(obs, legal_mask, generator, greedy)

    def state_dict(self) -> dict[str, Tensor]:
        """The network's weights."""
        weights = self.core.network.state_dict()
        return {name: value.detach().clone().contiguous() for name, value in weights.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the weights.

        Raises:
            AgentError: if names or shapes are not those of this network.
        """
        load_weights({"network": self.core.network}, prefixed("network", state))


class Chosen(NamedTuple):
    """What a search decided in M positions of P seats.

    Attributes:
        action: played, [M, P, ...].
        target: S actions for the policy to imitate, [M, P, S, ...].
        value: the search's value of the position for each seat, [M, P].
        q: its value of the played action, [M, P].
    """

    action: Tensor
    target: Tensor
    value: Tensor
    q: Tensor


class SearchLearner:
    """The base of agents that learn from their own search; a subclass has :meth:`search`.

    Args:
        config: settings.
        game: the game to be played.
        seed: of the initial weights.
        device: of the network.

    Attributes:
        core: the network that learns.
        latest: its policy as it was when the present round began.
        past: frozen policies of past rounds, the initial one first, the latest last unless it was dropped.
        rounds: number of rounds that are over.

    Raises:
        AgentError: for actions that are continuous.
    """

    def __init__(self, config: Any, game: Game, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.config, self.game, self.device, self.seed = config, game, torch.device(device), seed
        self.transitions = Transitions(game, device)
        settings = NetworkSettings(config.hidden, config.learning_rate, config.max_grad_norm)
        spaces = game.observation_space, game.action_space
        self.core = ActorCriticCore(settings, *spaces, seed=seed, device=device, network=config.network)
        self.rounds, self.learned, self.seen, self.owed, self.stride = 0, 0, 0, 0.0, 1
        self.weight = self.outcome_weight(0.0)
        self._begun = not (config.start or config.games)
        self._teacher = self._bot(config.teacher) if config.teacher else None
        self.latest = Frozen(self.core)
        self.past = [self.latest]

    @property
    def experience(self) -> OutcomeSpec:
        """Finished games."""
        return OutcomeSpec(self.config.num_steps, self.config.buffer_size, self.config.discount)

    def _bot(self, name: str) -> Agent:
        """The teacher of this name.

        Raises:
            AgentError: if it cannot play this game on observations, or there are no rounds to imitate it in.
        """
        make_bot = import_name("mlbits.agents.registry", "make_bot")  # it knows this agent's entry
        spaces = self.game.observation_space, self.game.action_space
        try:
            bot: Agent = make_bot(name, *spaces, device=self.device, game=self.game)
        except MlbitsError as error:
            raise AgentError(f"teacher: {error}") from None
        if self.config.start or self.config.warm_rounds < 1 or hasattr(bot, "plan"):
            raise AgentError(
                f"teacher: got {name} with start = {self.config.start!r} and warm_rounds = {self.config.warm_rounds}; "
                "wanted a bot that acts on observations, a run that starts with nothing, and a round to imitate it in"
            )
        return bot

    @property
    def searching(self) -> bool:
        """Whether the agent plays by search already."""
        return bool(self.config.start) or self.rounds >= self.config.warm_rounds

    def search(self, table: Table, generator: torch.Generator, *, explore: bool, greedy: bool) -> Chosen:
        """Decide for every seat of some positions, with self-play's noise if it explores.

        Raises:
            AgentError: always; a subclass has its own.
        """
        raise AgentError(f"{type(self).__name__}: has no search; wanted a subclass that does")

    def begin(self) -> None:
        """Before the first move: take over a trained agent's network, and imitate saved games."""
        if self._begun:
            return
        self._begun = True
        if self.config.start:
            self._start_from(self.config.start)
        if self.config.games:
            from mlbits.agents.best_response.imitation import imitate

            imitate(self.core, self.game, self.config, torch.Generator().manual_seed(self.seed))
        self.latest = Frozen(self.core)
        self.past = [self.latest]

    def _start_from(self, folder: str) -> None:
        load_agent = import_name("mlbits.selfplay.runs.saved_agents", "load_agent")  # above this package
        agent = load_agent(folder, str(self.device))[0]
        core, theirs = getattr(agent, "core", None), discount_of(agent)
        if getattr(agent, "reward_scale", None) is not None or theirs != self.config.discount:
            raise AgentError(
                f"start: got {folder}, whose values are for discount = {theirs:g} and normalize_reward = "
                f"{getattr(agent, 'reward_scale', None) is not None}; wanted discount = {self.config.discount:g} "
                "and rewards that are not normalized"
            )
        if not isinstance(core, ActorCriticCore) or core.moments is not None:
            raise AgentError(
                f"start: got {folder}, a run of {type(agent).__name__}; wanted an agent with a policy and a value "
                "network, such as ppo, and without normalize_obs"
            )
        try:
            load_weights({"network": self.core.network}, prefixed("network", core.network.state_dict()))
        except AgentError as error:
            raise AgentError(f"start: {folder} has another network than hidden = {self.config.hidden} and this game's "
                             f"spaces give ({error})") from None  # fmt: skip

    def plan(
        self, positions: Positions, generator: torch.Generator, *, greedy: bool = False, explore: bool | None = None
    ) -> Decision:
        """Decide for N rows by search; in the first rounds by the policy.

        Args:
            positions: the rows.
            generator: for draws.
            greedy: play the most probable action where play is mixed.
            explore: with self-play's noise; None explores unless ``greedy``.
        """
        self.begin()
        if not self.searching:
            return self._without_search(positions, generator, greedy)
        table, rows = self.transitions.table(positions)
        explore = not greedy if explore is None else explore
        decided = self.search(table, generator, explore=explore, greedy=greedy)
        found = Chosen(*(part.flatten(0, 1)[rows] for part in decided))
        count, device = len(rows), found.action.device
        notes = {
            "target": found.target, "value": found.value.float(), "q": found.q.float(),
            "imitate": torch.ones(count, device=device), "searched": torch.ones(count, device=device),
        }  # fmt: skip
        return Decision(found.action, found.action, None, notes)

    def _without_search(self, positions: Positions, generator: torch.Generator, greedy: bool) -> Decision:
        player = self.latest if self._teacher is None else self._teacher
        action = player.act(positions.obs, positions.legal_mask, generator, greedy=greedy).action
        value = self.state_values(positions.obs)
        target = action.unsqueeze(1).expand(-1, self.targets, *action.shape[1:]).contiguous()
        imitate = torch.full_like(value, float(self._teacher is not None))
        notes = {
            "target": target, "value": value, "q": value, "imitate": imitate, "searched": torch.zeros_like(value)
        }  # fmt: skip
        return Decision(action, action, None, notes)

    @property
    def targets(self) -> int:
        """Number of actions per decision that the policy imitates, S."""
        return 1

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """The network's policy, without search."""
        return self.core.act(obs, legal_mask, generator, greedy)

    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """The network's policy without search, for Discrete actions: float64 [N, A]."""
        return self.core.action_probabilities(obs, legal_mask, greedy)

    def state_values(self, obs: Any) -> Tensor:
        """The network's values of N rows of observations, [N]."""
        return self.core.values(obs, 1)

    def outcome_weight(self, progress: float) -> float:
        """The weight of the outcome in the value's target when this fraction of the run is over."""
        return float(self.config.outcome_weight)

    def learn(self, replay: OutcomeReplay, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Gradient steps in proportion to the decisions that were added; then perhaps the round ends.

        Returns:
            Losses, gradient norm, learning rate, rounds, and the fraction of sampled decisions that search made.
        """
        config = self.config
        self.core.optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr)
        self.weight = self.outcome_weight(progress)
        self.learned += 1
        self.owed += (replay.added - self.seen) * config.uses / config.batch_size
        self.seen = replay.added
        steps: list[dict[str, Tensor]] = []
        while self.owed >= 1 and len(replay):
            self.owed -= 1
            steps.append(self._step(replay.sample(config.batch_size, generator)))
        if self.learned * config.num_steps >= (self.rounds + 1) * config.round_steps:
            self._end_round()
        means = {
            name: float(torch.stack([step[name] for step in steps]).mean()) for name in (steps[0] if steps else ())
        }
        return means | {"rounds": float(self.rounds), "learning_rate": self.core.optimizer.learning_rate}

    def _step(self, data: Outcomes) -> dict[str, Tensor]:
        """One gradient step, in chunks that fit the cache."""
        count = len(data.outcome)
        total: dict[str, Any] = {}
        chunk = self.core.chunk if data.outcome.device.type == "cpu" else count
        imitated = data.notes["imitate"].sum().clamp(min=1)
        self.core.optimizer.zero_grad()
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            policy_loss, value_loss = self._losses(data, part)
            loss = policy_loss / imitated + self.config.value_coef * value_loss / count
            loss.backward()
            found = {"policy_loss": policy_loss.detach() / imitated, "value_loss": value_loss.detach() / count}
            total = {name: total.get(name, 0.0) + value for name, value in found.items()}
        total["imitated"] = data.notes["imitate"].mean()
        total["grad_norm"] = self.core.optimizer.step()
        return total

    def _losses(self, data: Outcomes, part: slice) -> tuple[Tensor, Tensor]:
        """Sums over the rows of a part of the cross-entropy and of half the squared error of the value."""
        obs, notes = pick(data.obs, part), {name: note[part] for name, note in data.notes.items()}
        mask = None if data.mask is None else data.mask[part]
        params, value = self.core.network(self.core.prepare(obs))
        log_prob = torch.stack(
            [self.core.distribution.log_prob(params, mask, notes["target"][:, s]) for s in range(self.targets)]
        ).mean(0)
        weight = self.weight
        target = weight * data.outcome[part] + (1 - weight) * notes["value"]
        target = torch.where(notes["searched"] > 0, target, data.outcome[part])
        return -(notes["imitate"] * log_prob).sum(), 0.5 * (value - target).square().sum()

    def _end_round(self) -> None:
        """Freeze the policy."""
        self.rounds += 1
        if self.rounds <= self.config.warm_rounds and not self.config.start:
            if self._teacher is not None:  # else the policy has not changed
                self.latest = Frozen(self.core)
                self.past = [self.latest]
            return
        self.latest = Frozen(self.core)
        if self.rounds % self.stride == 0:
            self.past.append(self.latest)
        if len(self.past) > self.config.max_past:
            self.past, self.stride = self.past[::2], 2 * self.stride

    def policy(self, frozen: Frozen, temperature: float = 1.0, top_p: float = 1.0) -> AgentPolicy:
        """A frozen policy to sample from."""
        return AgentPolicy(frozen, temperature, top_p)

    def state_dict(self) -> dict[str, Tensor]:
        """The network with its optimiser, all frozen policies and the counts."""
        state = prefixed("core", self.core.state_dict())
        numbers = [self.rounds, self.learned, self.seen, self.stride, int(self._begun)]
        state |= {"counts": torch.tensor(numbers), "owed": torch.tensor(self.owed, dtype=torch.float64)}
        for name, frozen in [("latest", self.latest), *((f"past{k}", frozen) for k, frozen in enumerate(self.past))]:
            state |= prefixed(name, frozen.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this network.
        """
        self.core.load_state_dict(unprefixed("core", state))
        self.rounds, self.learned, self.seen, self.stride, begun = (int(k) for k in state["counts"])
        self.owed, self._begun = float(state["owed"]), bool(begun)
        self.latest = _restored(self.core, unprefixed("latest", state))
        self.past = []
        while past := unprefixed(f"past{len(self.past)}", state):
            self.past.append(_restored(self.core, past))


def _restored(core: ActorCriticCore, weights: Mapping[str, Tensor]) -> Frozen:
    frozen = Frozen(core)
    frozen.load_state_dict(weights)
    return frozen
