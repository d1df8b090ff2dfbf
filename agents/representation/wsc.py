"""Weakly supervised control (WSC): an agent that sets its own goals among factors of pictures that it was told about.

Lee et al., "Weakly-supervised reinforcement learning for controllable behavior" (2020, arXiv 2004.02860), in two
phases:

1. *Look.* An encoder e is learned from pictures of starts, before any acting, from weak labels: which of two pictures
   has more of a factor (:mod:`~mlbits.agents.representation.labels`). Each latent is scaled so that it goes from 0 to 1
   over those pictures. I are the latents of the factors that a goal sets, such as one block's place.
2. *Act.* In training each episode is played for a goal g that the agent draws, uniform on [0, 1]^|I|; the reward is
   -||e_I(s') - g||, whatever the environment pays. Sampled steps keep their goal, get a new one, or one that their
   episode reached (:mod:`~mlbits.agents.representation.goal_memory`). Soft actor-critic learns on latents and goal.

Whoever plays the trained agent shows it a goal as a picture, which is encoded too. Other encoders and goals make other
methods, on the same loop and networks:

    rank, uniform goals        WSC, with the pair term of the paper's network alone, which takes seconds
    gan, uniform goals         WSC with the paper's network
    vae, goals of its prior    RIG (Nair et al. 2018); no labels
    vae, skewed goals          Skew-Fit (Pong et al. 2020): goals are drawn from what was reached, in proportion to its
                               density to the power of skew_power
    vae, fresh 0, future 0.8, reach 1   HER on latents, with a sparse reward
    factors, uniform goals     the exact factors in place of an encoder, in the same scale: what a perfect one gives

Differences from the paper: the policy sees the latents of the encoder that goals are made with, and not those of an
autoencoder beside it; an autoencoder stays as it was learned in phase 1; Skew-Fit's density is a normal distribution
fitted to the latents reached.

Observations are a Dict with the pictures ``observation`` and ``goal_picture``, ``factors``, which are read to answer
labels alone (but by "factors"), and ``desired_goal``, which "factors" alone reads: ``mlbits/PushBlocks-v0`` has them.

Example:
    mlbits train wsc mlbits/PushBlocks-v0 --env.observation both --env.blocks 2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from mlbits.agents.agent import (
    AgentError,
    Decision,
    Rollout,
    RolloutSpec,
    load_weights,
    network_generator,
    prefixed,
    unprefixed,
)
from mlbits.agents.players import OutsideTraining
from mlbits.agents.representation.goal_memory import GoalMemory
from mlbits.agents.representation.labels import ask
from mlbits.agents.representation.networks import Convolutions
from mlbits.agents.representation.rank import learn_rank
from mlbits.agents.representation.rank_gan import MeanOf, learn_rank_gan
from mlbits.agents.representation.vae import learn_vae
from mlbits.agents.sac import SAC, SACConfig
from mlbits.envs.core.config_fields import configuration, setting

KEYS = ("observation", "goal_picture", "factors", "desired_goal")
POOL, SEEN = 256, 1024  # skewed goals drawn at once, and the latents that they are drawn from


@configuration(AgentError)
class WSCConfig:
    """Settings of WSC; networks, batches and iterations are smaller than the paper's."""

    representation: Literal["rank", "gan", "vae", "factors"] = setting(
        "rank", "what encodes pictures: rankers, the paper's network, an autoencoder; or the exact factors"
    )
    labelled: tuple[int, ...] = setting((), "numbers of the factors that labels are about, from 0; none for all")
    goal_factors: tuple[int, ...] = setting(
        (2, 3), "numbers of the factors that a goal sets, all of them labelled (an autoencoder has none)"
    )
    pictures: int = setting(512, "pictures of starts that the encoder learns from", low=2, high=1e6)
    pairs: int = setting(1024, "pairs of them that are compared", low=1, high=1e9)
    label_noise: float = setting(0.0, "probability with which a factor of a picture is misjudged", low=0, high=1)
    look_iterations: int = setting(1000, "gradient steps of the encoder", low=1, high=1e9)
    latents: int = setting(16, "numbers that an autoencoder encodes pictures as", low=1, high=10_000)
    goals: Literal["auto", "uniform", "prior", "skewed"] = setting(
        "auto", "where new goals come from; auto: prior for an autoencoder, else uniform"
    )
    skew_power: float = setting(-1.0, "power of the density by which skewed goals are drawn", low=-10, high=0)
    future: float = setting(0.5, "share of sampled steps whose goal their episode reached later", low=0, high=1)
    fresh: float = setting(0.3, "share of sampled steps whose goal is new", low=0, high=1)
    reach: float = setting(0.0, "distance in which a sparse reward is 0; 0 for minus the distance", low=0, high=1e6)
    num_steps: int = setting(5, "steps of each copy between two rounds of updates", low=1, high=1e6)
    replay_ratio: float = setting(1.0, "gradient steps per step, over all copies", low=1e-9, high=1e3)
    buffer_size: int = setting(50_000, "steps kept in the replay buffer", low=1, high=1e9)
    learning_starts: int = setting(1000, "steps played uniformly at random before acting is learned", low=0, high=1e12)
    batch_size: int = setting(128, "steps per gradient step", low=1, high=1e6)
    learning_rate: float = setting(1e-3, "learning rate of actor, critics and temperature", low=0, high=10)
    discount: float = setting(0.97, "discount factor, gamma", low=0, high=1)
    tau: float = setting(0.005, "step size of a target update", low=1e-9, high=1)
    hidden: tuple[int, ...] = setting((128, 128), "widths of the hidden layers of actor and critics", low=1)

    def check(self) -> None:
        """Reject shares above 1 in sum, and goals of factors without labels."""
        if self.future + self.fresh > 1:
            raise AgentError(f"future, fresh: got {self.future:g} and {self.fresh:g}; wanted at most 1 together")
        if not self.goal_factors or min((*self.goal_factors, *self.labelled)) < 0:
            raise AgentError(f"goal_factors: got {self.goal_factors}; wanted one or more numbers of factors, from 0")
        missing = sorted(set(self.goal_factors) - set(self.labelled)) if self.labelled else []
        if missing and self.representation in ("rank", "gan"):
            raise AgentError(f"goal_factors: factor {missing[0]} has no labels; wanted some of {self.labelled}")
        if self.representation != "vae" and self.goals == "prior":
            raise AgentError(
                f"goals: got 'prior' for the representation {self.representation!r}, which has none; wanted 'uniform'"
            )


class WSC:
    """A WSC agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's: a Dict with pictures, factors and goals.
        action_space: one seat's: a Box with bounds.
        seed: of the initial weights.
        device: where the networks are kept.

    Attributes:
        sees: whether the encoder has been learned.
        sac: the agent that acts on latents and goals.
        memory_size: the goal of the episode under way, and whether there is one.

    Raises:
        AgentError: for observations or factors that are not as they have to be.
    """

    def __init__(
        self,
        config: WSCConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        shape, factors = _checked(config, observation_space)
        labelled = config.labelled or tuple(range(factors))
        self._labelled = torch.tensor(labelled, device=device)
        self._sets_own_goals, self.sees, self._agreement = False, False, 0.0
        generator = network_generator(seed)
        size = {"vae": config.latents, "factors": factors}.get(config.representation, len(labelled))
        self.network: nn.Module = nn.Identity()
        if config.representation == "rank":
            self.network = Convolutions(shape, size, generator)
        elif config.representation != "factors":
            self.network = MeanOf(Convolutions(shape, 2 * size, generator), size)
        self.network = self.network.to(device).requires_grad_(False)
        self._low, self._high = torch.zeros(size, device=device), torch.ones(size, device=device)
        if config.representation == "vae":
            chosen = list(range(size))
        else:
            chosen = [k if config.representation == "factors" else labelled.index(k) for k in config.goal_factors]
        self.goal = torch.tensor(chosen, device=device)
        self._goals = {"auto": "prior" if config.representation == "vae" else "uniform"}.get(config.goals, config.goals)
        self._pool = torch.zeros(POOL, len(chosen), device=device)
        self._pooled = False
        self.sac = SAC(
            SACConfig(
                replay_ratio=config.replay_ratio, learning_starts=config.learning_starts,
                batch_size=config.batch_size, discount=config.discount, tau=config.tau, hidden=config.hidden,
                actor_learning_rate=config.learning_rate, critic_learning_rate=config.learning_rate,
                temperature_learning_rate=config.learning_rate, temperature_start=0.1,
            ),
            spaces.Box(-np.inf, np.inf, (size + len(chosen),), np.float32), action_space, seed=seed, device=device,
        )  # fmt: skip
        self.memory = GoalMemory(
            config.buffer_size, size, len(self.sac._low), self.goal, future=config.future, fresh=config.fresh,
            reach=config.reach, new_goals=self.new_goals, device=device,
        )  # fmt: skip

    @property
    def memory_size(self) -> int:
        """The goal, and whether there is one."""
        return len(self.goal) + 1

    @property
    def experience(self) -> RolloutSpec:
        """A few new steps at a time; the agent keeps them itself."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False)

    def prepare_to_learn(self) -> None:
        """From now on the agent draws its own goals where it does not act greedily."""
        self._sets_own_goals = True

    def outside_training(self) -> OutsideTraining:
        """This agent, for the goals that it is shown, however it decides."""
        return OutsideTraining(self)

    # Phase 1: look

    def look(self, pictures: Tensor, factors: NDArray[np.floating], generator: torch.Generator) -> None:
        """Learn the encoder.

        Args:
            pictures: uint8 [n, C, H, W].
            factors: their exact factors [n, F], from which labels are answered.
            generator: the source of labels, weights and minibatches, on the CPU.

        Raises:
            AgentError: for more pairs than there are, or a factor of goals, or a labelled one, that never varies.
        """
        config = self.config
        if config.representation == "vae":
            learned: nn.Module = learn_vae(pictures, config.latents, config.look_iterations, generator)
        elif config.representation != "factors":
            rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
            asked = factors[:, self._labelled.cpu().numpy()]
            names = [f"factor {k}" for k in self._labelled.tolist()]
            labels = ask(asked, config.pairs, rng, noise=config.label_noise, names=names)
            learn = learn_rank if config.representation == "rank" else learn_rank_gan
            learned = learn(pictures, labels, config.look_iterations, generator)
        if config.representation != "factors":
            self.network.load_state_dict(learned.state_dict())
        with torch.no_grad():
            found = self._raw(pictures, torch.from_numpy(factors).to(self.device))
        if config.representation != "vae":  # whose latents have a scale of their own
            self._low, self._high = found.min(0).values, found.max(0).values
            for k in self.goal[(self._low == self._high)[self.goal]].tolist():
                which = f"factor {k}" if config.representation == "factors" else f"the number for {names[k]}"
                raise AgentError(
                    f"goal_factors: {which} is {self._low[k]:g} in all {len(pictures):,} pictures; wanted one that "
                    "varies"
                )
            self._high = torch.where(self._low == self._high, self._low + 1, self._high)  # a constant becomes 0
            if config.representation != "factors":
                rank = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.cpu().numpy().T, asked.T, strict=True)]
                self._agreement = float(np.nan_to_num(rank).min())
        self.sees = True

    def _raw(self, pictures: Tensor, factors: Tensor) -> Tensor:
        return factors if self.config.representation == "factors" else self.network(pictures)

    @torch.no_grad()
    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Latents [N, Z] of N observations."""
        return (self._raw(obs["observation"], obs["factors"]) - self._low) / (self._high - self._low)

    @torch.no_grad()
    def shown_goal(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The goal [N, G] that N observations show."""
        if self.config.representation == "factors":
            return (obs["desired_goal"] - self._low[self.goal]) / (self._high - self._low)[self.goal]
        return ((self.network(obs["goal_picture"]) - self._low) / (self._high - self._low))[:, self.goal]

    # Phase 2: act

    def new_goals(self, count: int, generator: torch.Generator) -> Tensor:
        """Goals of the agent's own, [count, G]."""
        shape = (count, len(self.goal))
        if self._goals == "uniform":
            goals = torch.rand(shape, generator=generator, device=generator.device)
        elif self._goals == "prior" or not self._pooled:
            goals = torch.randn(shape, generator=generator, device=generator.device)
        else:
            drawn = torch.randint(POOL, (count,), generator=generator, device=generator.device)
            goals = self._pool[drawn.to(self.device)]
        return goals.to(self.device)

    def _skew(self, generator: torch.Generator) -> None:
        """Draw a pool of goals among latents reached, by their density to a power."""
        reached = self.memory.some_reached(SEEN, generator)
        centred = reached - reached.mean(0)
        covariance = centred.T @ centred / len(reached) + 1e-4 * torch.eye(centred.shape[1], device=self.device)
        log_density = -0.5 * (centred * torch.linalg.solve(covariance, centred.T).T).sum(1)
        weight = torch.softmax(self.config.skew_power * log_density, 0).to(generator.device)
        drawn = torch.multinomial(weight, POOL, replacement=True, generator=generator)
        self._pool, self._pooled = reached[drawn.to(self.device)], True

    @torch.no_grad()
    def act(
        self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False, memory: Tensor,
        training: bool = True,
    ) -> Decision:  # fmt: skip
        """Decide for N rows: towards the goal they show, or in training, unless ``greedy``, one of the agent's own."""
        if self._sets_own_goals and training and not greedy:
            has_goal = memory[:, :1] > 0
            goal = torch.where(has_goal, memory[:, 1:], self.new_goals(len(memory), generator))
        else:
            goal = self.shown_goal(obs)
        decision = self.sac.act(torch.cat([self.encode(obs), goal], 1), None, generator, greedy=greedy)
        kept = torch.cat([torch.ones_like(goal[:, :1]), goal], 1)
        return decision._replace(notes={"goal": goal}, memory=kept)

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Encode and keep the rollout's steps, and make the updates that are due.

        Args:
            rollout: T steps of B copies.
            progress: fraction of the run that is over, 0..1.
            generator: for sampling.

        Returns:
            SAC's metrics, ``encoder_agreement``, the worst correlation of a labelled factor with its latent over the
            pictures of phase 1, and ``goal_distance``, the mean distance to the goals played for.

        Raises:
            AgentError: if no encoder has been learned: ``mlbits train wsc`` does that first.
        """
        if not self.sees:
            raise AgentError("wsc: has no encoder yet; wanted look() before learn(), as mlbits train wsc does")
        obs, ended = rollout.obs, rollout.terminated | rollout.truncated
        steps, copies = ended.shape
        z = self.encode({key: part.flatten(0, 2) for key, part in obs.items()}).view(steps, copies, -1)
        last = self.encode({key: part.flatten(0, 1) for key, part in rollout.last_obs.items()})
        next_z = torch.cat([z[1:], last[None]])
        where = ended.nonzero(as_tuple=True)
        if len(where[0]):
            next_z[where] = self.encode({key: part[where][:, 0] for key, part in rollout.final_obs.items()})
        assert rollout.notes is not None
        goal = rollout.notes["goal"][:, :, 0]
        self.memory.add(z, next_z, rollout.sample[:, :, 0], goal, rollout.terminated, ended)
        if self._goals == "skewed":
            self._skew(generator)
        far = (next_z[:, :, self.goal] - goal).norm(dim=2).mean()
        experience: Any = self.memory
        metrics = self.sac.learn(experience, progress, generator)
        return {**metrics, "goal_distance": far, "encoder_agreement": self._agreement}

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of encoder, scale, goals, the acting agent and the replay buffer."""
        numbers = torch.tensor([float(self.sees), float(self._pooled), self._agreement], dtype=torch.float64)
        state = {"low": self._low, "high": self._high, "pool": self._pool, "numbers": numbers}
        state |= prefixed("network", self.network.state_dict()) | prefixed("sac", self.sac.state_dict())
        state |= prefixed("memory", self.memory.state_dict())
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of these networks.
            ValueError: if those of the replay buffer are not.
        """
        load_weights({"network": self.network}, state)
        self.sac.load_state_dict(unprefixed("sac", state))
        self.memory.load_state_dict(unprefixed("memory", state))
        for name, own in (("low", self._low), ("high", self._high), ("pool", self._pool)):
            if state[name].shape != own.shape:
                raise AgentError(f"{name}: got {list(state[name].shape)}; wanted {list(own.shape)}")
        self._low, self._high, self._pool = (state[name].to(self.device) for name in ("low", "high", "pool"))
        sees, pooled, agreement = state["numbers"].tolist()
        self.sees, self._pooled, self._agreement = bool(sees), bool(pooled), agreement


def _checked(config: WSCConfig, space: gym.Space[Any]) -> tuple[tuple[int, int, int], int]:
    """The shape of pictures and the number of factors of an observation space that has both."""
    keys = list(space.spaces) if isinstance(space, spaces.Dict) else []
    missing = [key for key in KEYS if key not in keys]
    if missing:
        raise AgentError(
            f"wsc: the observations have no {missing[0]}; wanted a Dict with {', '.join(KEYS)}, such as that of "
            "mlbits/PushBlocks-v0 with --env.observation both"
        )
    assert isinstance(space, spaces.Dict)
    picture, count = space["observation"].shape or (), int(np.prod(space["factors"].shape or ()))
    if len(picture) != 3 or space["observation"].dtype != np.uint8 or space["goal_picture"].shape != picture:
        raise AgentError(
            f"wsc: got pictures {space['observation']}; wanted bytes [channels, height, width], and such goals"
        )
    for name in ("labelled", "goal_factors"):
        for number in (k for k in getattr(config, name) if k >= count):
            raise AgentError(f"{name}: got factor {number}; wanted 0 to {count - 1}")
    goal = int(np.prod(space["desired_goal"].shape or ()))
    if config.representation == "factors" and goal != len(config.goal_factors):
        raise AgentError(
            f"goal_factors: got {config.goal_factors}, and the environment's goals have {goal} numbers; wanted as many"
        )
    return (picture[0], picture[1], picture[2]), count
