"""Proximal policy optimisation: several epochs of minibatches on a surrogate that keeps near the old policy.

Schulman et al., "Proximal Policy Optimization Algorithms" (2017); Kaplan, "Notes on Contemporary Machine Learning for
Physicists", 8.5. With ratio r = pi(a|s) / pi_old(a|s) and advantage A, minimise over each minibatch

    objective "clip" (eq. 7):         -E[min(r A, clip(r, 1 - eps, 1 + eps) A)]
    objective "adaptive_kl" (eq. 8):  -E[r A - beta KL(pi_old || pi)], beta doubled or halved after each rollout whose
                                      KL is beyond 1.5 times or below 1 / 1.5 of its target (section 4)
    objective "dpo":                  -E[r A - drift(r, A)], the closed form of a drift that was learned by evolution
                                      strategies (Lu et al., "Discovered Policy Optimisation", 2022): ``learned_drift``

plus value_coef times half the squared error of the value, minus entropy_coef times the entropy (eq. 9).
Advantages by GAE (``returns``).

Of the 37 details of Huang et al., "The 37 implementation details of PPO" (ICLR blog track 2022), used: vectorised
copies, orthogonal initialisation, Adam's epsilon 1e-5, learning-rate annealing, GAE with the values of cut episodes
(their final observations), minibatches reshuffled each epoch, advantage normalisation per minibatch, the clipped
surrogate, entropy bonus, gradient-norm clipping, the debug quantities (KL, clip fraction, explained variance), separate
actor and critic for vectors and shared convolutions for images, state-independent log standard deviation, independent
action components, masks and multi-discrete actions; as settings: observation and reward standardisation, early stopping
by KL, recurrence; frame stacks are a setting of environments. Left out: value clipping (no gain, often harm:
Andrychowicz et al. 2021, C.3), and the Atari wrappers, which Gymnasium has.

With ``apo_every`` the learning rate is learned too (``networks/proximal_step``): every few gradient steps the step is
tried, and the rate moves to where the loss after it, plus how far policy and values move on the next minibatch (KL, and
value_coef times half the squared difference), is smaller.

With ``memory`` the network remembers the episode (``networks/recurrent.py``). Minibatches are then of whole sequences
of one seat's decisions, through which gradients flow back; each starts from the memory with which it was played.

Example:
    mlbits train ppo mlbits/CartPole-v0
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.actor_critic_agent import ActorCriticAgent
from mlbits.agents.agent import AgentError, Rollout, RolloutSpec, pick
from mlbits.agents.cuda_graphs.captured_updates import CapturedUpdates
from mlbits.agents.exploration.settings import OwnValueSettings, bonus_last
from mlbits.agents.kernels import shards
from mlbits.agents.maths.action_distributions import probability_ratio
from mlbits.agents.maths.learned_drift import learned_drift
from mlbits.agents.networks.actor_critic import ActorCriticCore, explained_variance
from mlbits.agents.networks.mlp import Activation
from mlbits.agents.networks.orders import OrderDistribution
from mlbits.agents.networks.own import ENCODER_HELP
from mlbits.agents.networks.proximal_step import StepSize
from mlbits.agents.networks.recurrent import Sequences, sequences_of
from mlbits.agents.passes.chunks import Chunks
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, changes, value_at

Metrics = dict[str, Tensor]
Batch = tuple[Tensor, Sequences | None]  # rows, and with memory the sequences that they are

_ENTROPY_COEF = 0.01  # of Huang et al. for discrete actions


@bonus_last
@configuration(AgentError)
class PPOConfig(OwnValueSettings):
    """Settings of PPO; defaults of Huang et al. (2022) for classic control unless said otherwise."""

    num_steps: int = setting(128, "steps of each copy per rollout", low=1, high=1e6)
    learning_rate: Scheduled = setting(2.5e-4, "learning rate of Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(True, "decay the learning rate, if it is a number, linearly to 0 over the run")
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    gae_lambda: float = setting(0.95, "lambda of generalised advantage estimation", low=0, high=1)
    epochs: int = setting(4, "passes over each rollout", low=1, high=1e4)
    minibatches: int = setting(4, "minibatches per pass, one gradient step each", low=1, high=1e6)
    objective: Literal["clip", "adaptive_kl", "dpo"] = setting(
        "clip", "surrogate: clipped, with an adaptive KL penalty, or with the drift of discovered policy optimisation"
    )
    clip_coef: Scheduled = setting(0.2, "epsilon of the clipped objective", low=1e-6, high=10, scheduled=True)
    anneal_clip: bool = setting(False, "decay the clip coefficient, if it is a number, linearly to 0 over the run")
    adaptive_target_kl: float = setting(
        0.01, "KL divergence per rollout that adaptive_kl aims for (2017 paper: 0.01)", low=1e-9, high=100, unit="nats"
    )
    kl_coef: float = setting(1.0, "initial penalty coefficient beta of adaptive_kl (2017 paper: 1)", low=0, high=1e6)
    dpo_alpha: float = setting(2.0, "how far dpo lets good actions drift, alpha (2022 paper: 2)", low=1e-6, high=1e6)
    dpo_beta: float = setting(0.6, "how far dpo lets bad actions drift, beta (2022 paper: 0.6)", low=1e-6, high=1e6)
    apo_every: int = setting(
        0, "gradient steps between two adaptations of the learning rate, which is then learned and not annealed; 0 "
        "keeps it as set", low=0, high=1e9,
    )  # fmt: skip
    apo_function: float = setting(
        1.0, "what the learned rate pays for moving policy and values on other rows", low=0, high=1e9
    )
    apo_weights: float = setting(0.0, "what it pays for moving weights (half the squared distance)", low=0, high=1e9)
    apo_rate: float = setting(0.1, "how far the logarithm of the learned rate moves at a time", low=1e-6, high=10)
    target_kl: float = setting(
        0.0, "KL divergence that ends a rollout's epochs early; 0 never does", low=0, high=1e6, unit="nats"
    )
    entropy_coef: Scheduled = setting(
        "auto", "weight of the entropy bonus", low=0, high=1e3, scheduled=True,
        auto="0.01, and 0 for continuous actions, whose entropy has no bound",
    )  # fmt: skip
    anneal_entropy: bool = setting(False, "decay that weight, if it is a number, linearly to 0 over the run")
    value_coef: float = setting(0.5, "weight of the value loss (half the squared error)", low=0, high=1e3)
    max_grad_norm: float = setting(0.5, "largest L2 norm of the gradient; larger ones are clipped", low=1e-9, high=1e9)
    normalize_advantage: bool = setting(True, "scale advantages to mean 0 and variance 1 in each minibatch")
    normalize_obs: bool = setting(False, "standardise vectors and images of observations by their running moments")
    normalize_reward: bool = setting(False, "divide rewards by the running standard deviation of discounted returns")
    hidden: tuple[int, ...] = setting(
        (64, 64),
        "widths of the hidden layers of actor and critic; of an order network, of its first layer and one graph "
        "convolution each",
        low=1,
    )
    activation: Activation = setting("tanh", "activation of the hidden layers, of MLPs")
    shared: bool = setting(
        False, "one network for policy and value, as for Atari (hidden (512,), activation relu), instead of one each"
    )
    encoder: str = setting("", ENCODER_HELP)
    model: str = setting(
        "", "a whole network of your own as module:factory, observations to policy [N, outputs] and values [N]"
    )
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions", low=-10, high=5)
    network: Literal["auto", "mlp"] = setting(
        "auto", "auto uses the order network for orders on a graph and MLPs elsewhere; mlp always uses MLPs"
    )
    graphs: bool = setting(
        False, "on a GPU, start all steps of a rollout, and all updates of an iteration, as one CUDA graph each"
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", "numbers in the products of forward and backward passes; weights and optimiser stay float32"
    )
    compile: bool = setting(
        False, "compile the network's passes in updates with torch.compile: half a minute at the start, then faster"
    )
    memory: Literal["none", "gru", "lstm"] = setting("none", "what remembers the episode under actor and critic")
    memory_width: int = setting(64, "width of that GRU or LSTM", low=1, high=1e5)
    sequence_length: int = setting(
        0, "with memory, most decisions through which gradients flow back; 0 for all of a rollout", low=0, high=1e6
    )

    def check(self) -> None:
        """Refuse parts of a network that exclude one another."""
        given = {"shared": self.shared, "encoder": self.encoder, "memory": self.memory != "none"}
        if self.model and (other := [name for name, value in given.items() if value]):
            raise AgentError(f"model: got {self.model!r}, a whole network, with {other[0]}; wanted one of them")
        if self.shared and given["memory"]:
            raise AgentError("shared: got True with memory, which policy and value share already; wanted False")
        if self.apo_every and isinstance(self.learning_rate, str):
            raise AgentError(f"learning_rate: got the schedule {self.learning_rate!r} with apo_every, which learns it; "
                             "wanted a number to start from")  # fmt: skip
        decided = {
            "target_kl": self.target_kl, "objective adaptive_kl": self.objective == "adaptive_kl",
            "apo_every": self.apo_every, "memory": given["memory"], "normalize_obs": self.normalize_obs,
        }  # fmt: skip
        if self.graphs and (other := [name for name, value in decided.items() if value]):
            raise AgentError(
                f"graphs: got True with {other[0]}, by which the host decides in between; wanted one of them"
            )


class PPO(ActorCriticAgent):
    """A PPO agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, MultiDiscrete or Box of one axis.
        seed: seed of the initial weights.
        device: the networks' device.
    """

    config: PPOConfig
    in_shards = True  # it sums over shards what decides
    learns_behind = True  # its ratio is to the policy that acted

    def __init__(
        self,
        config: PPOConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        core = ActorCriticCore(
            config, observation_space, action_space, seed=seed, device=device, network=config.network,
            activation=config.activation, encoder=config.encoder, model=config.model, shared=config.shared,
            memory=config.memory, memory_width=config.memory_width, bfloat16=config.precision == "bfloat16",
            compiled=config.compile,
        )  # fmt: skip
        if isinstance(core.distribution, OrderDistribution):
            if config.objective == "adaptive_kl":
                raise AgentError("objective: got 'adaptive_kl' with the order network, which has no KL; wanted 'clip', "
                                 "or network='mlp'")  # fmt: skip
            if config.apo_every:
                raise AgentError(f"apo_every: got {config.apo_every} with the order network, which has no KL; wanted "
                                 "0, or network='mlp'")  # fmt: skip
            if config.graphs:
                raise AgentError("graphs: got True with the order network, which waits for numbers of legal orders; "
                                 "wanted False, or network='mlp'")  # fmt: skip
        super().__init__(config, core, observation_space, action_space, seed=seed, device=device)
        self.step_size: StepSize | None = None
        if config.apo_every:
            self.step_size = StepSize(value_at(config.learning_rate, 0.0), config.apo_rate, config.apo_weights)
        self._steps = 0  # gradient steps, which decide when the learning rate is adapted
        self.kl_coef = config.kl_coef
        bounded = not getattr(self.core.distribution, "gaussian", False)
        self._entropy: Scheduled = config.entropy_coef
        if config.entropy_coef == "auto":
            self._entropy = _ENTROPY_COEF if bounded else 0.0
        self._entropy_coef = value_at(self._entropy, 0.0)
        self.chunks = Chunks()
        self.graph = CapturedUpdates(self._epochs_by) if config.graphs else None

    @property
    def experience(self) -> RolloutSpec:
        """Windows of ongoing play."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False, min_rows=self.config.minibatches)

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """One iteration: advantages, then epochs of minibatches.

        Args:
            rollout: experience of the current policy; decisions that were carried over are of the policy before it, and
                their ratio is to that one.
            progress: fraction of the run that is over, 0..1.
            generator: for shuffling the minibatches.

        Returns:
            Losses, KL, clip fraction, entropy, explained variance, learning rate, gradient norm; empty for a rollout
            without a decision of the learner's, from which nothing can be learned.

        Raises:
            AgentError: if the rollout has fewer rows than minibatches. If seats wait for their turns, the number of
                decisions in it is random, and there are as many minibatches as these allow.
        """
        config = self.config
        if self.step_size is None:
            self.core.optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr)
        clip = value_at(config.clip_coef, progress, anneal=config.anneal_clip)
        self._entropy_coef = value_at(self._entropy, progress, anneal=config.anneal_entropy)
        bonus_advantage = None
        if self.explorer is not None:
            rollout, bonus_advantage = self.explorer.rewarded(rollout, progress, generator)
        sequences = sequences_of(rollout, config.sequence_length) if self.memory_size else None
        data = self._prepare(rollout, sequences, bonus_advantage)
        count = len(data["log_prob"])
        if count < config.minibatches and rollout.active is None:
            raise AgentError(
                f"minibatches: got {config.minibatches} for a rollout of {count} steps; wanted at most that"
            )
        if shards.least(count) == 0:  # in one of the shards, if there are several: all learn, or none
            return {}
        if self.graph is None or shards.number() > 1:  # exchanges cannot be part of a graph
            metrics = self._epochs(data, sequences, clip, generator)
        else:
            rate, entropy_coef = self.core.optimizer.learning_rate, self._entropy_coef
            metrics = self.graph(data, {"clip": clip, "rate": rate, "entropy_coef": entropy_coef}, generator)
            self.core.optimizer.learning_rate, self._entropy_coef = rate, entropy_coef
        self.core.update_moments(rollout)
        result = self._summary(metrics, data) | self.bonus_metrics()
        if changes(config.clip_coef, config.anneal_clip):
            result["clip_coef"] = clip
        if changes(self._entropy, config.anneal_entropy):
            result["entropy_coef"] = self._entropy_coef
        if config.objective == "adaptive_kl":
            self._adapt_kl(data, sequences)
            result["kl_coef"] = self.kl_coef
        return result

    def _epochs(
        self, data: dict[str, Any], sequences: Sequences | None, clip: float, generator: torch.Generator
    ) -> list[Metrics]:
        """Epochs of minibatches, until the policy is ``target_kl`` away; what each gradient step measured."""
        config, metrics = self.config, []
        count = len(data["log_prob"]) if sequences is None else sequences.number
        minibatches = shards.least(min(config.minibatches, count))
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=generator, device=generator.device).to(data["log_prob"].device)
            parts = order.tensor_split(minibatches)
            batches = [(part, None) if sequences is None else _rows_of(sequences.pick(part)) for part in parts]
            for (part, chosen), others in zip(batches, (*batches[1:], batches[0]), strict=True):
                metrics.append(self._step(data, part, clip, chosen, others))
            if config.target_kl and float(shards.mean(metrics[-1]["approx_kl"])) > config.target_kl:
                break
        return metrics

    def _epochs_by(self, data: dict[str, Any], numbers: Mapping[str, Any], generator: torch.Generator) -> list[Metrics]:
        """The same by numbers that are tensors in a graph."""
        self.core.optimizer.learning_rate, self._entropy_coef = numbers["rate"], numbers["entropy_coef"]
        return self._epochs(data, None, numbers["clip"], generator)

    @torch.no_grad()
    def _prepare(
        self, rollout: Rollout, sequences: Sequences | None = None, bonus_advantage: Tensor | None = None
    ) -> dict[str, Any]:
        """Flatten a rollout to the rows at which the learner acted, with advantages and value targets."""
        config = self.config
        reward = rollout.reward if self.reward_scale is None else self.reward_scale(rollout)
        data = self.core.rows_with_advantages(
            rollout, reward, discount=config.discount, gae_lambda=config.gae_lambda, bonus_advantage=bonus_advantage
        )
        data["obs"] = self.core.prepare(data["obs"])
        if config.objective == "adaptive_kl" and len(data["log_prob"]):
            data["params"] = self._policy(data, sequences)
        return data

    def _policy(self, data: dict[str, Any], sequences: Sequences | None) -> Tensor:
        """The policy's parameters at all rows."""
        if sequences is None:
            params: Tensor = self.core.network.policy(data["obs"])
            return params
        rows = sequences.rows
        params = self.core.network.unroll(pick(data["obs"], rows), sequences)[0]
        return torch.empty_like(params).index_copy_(0, rows, params)

    def _step(
        self,
        data: dict[str, Any],
        part: Tensor,
        clip: float,
        sequences: Sequences | None = None,
        others: Batch | None = None,
    ) -> Metrics:
        """One gradient step on the rows ``part``; a learned rate looks ahead on ``others``, another minibatch."""
        gradient = functools.partial(self._gradient, data, part, clip, sequences)
        metrics = gradient()
        if self.step_size is not None and others is not None:
            self._adapt_step(data, gradient, *others)
        return metrics | {"grad_norm": self.core.optimizer.step()}

    def _gradient(self, data: dict[str, Any], part: Tensor, clip: float, sequences: Sequences | None) -> Metrics:
        """The gradient on the rows ``part``, in chunks that fit cache or memory; on those of sequences in one go."""
        optimizer, count = self.core.optimizer, len(part)
        advantage = pick(data["advantage"], part)
        if self.config.normalize_advantage and count * shards.number() > 1:
            mean, deviation = shards.mean_and_deviation(advantage)
            advantage = (advantage - mean) / (deviation + 1e-8)
        chunk = count if sequences is not None else self.core.rows_a_pass(data["obs"], count)

        def loss_of(rows: slice) -> tuple[Tensor, Metrics]:
            return self._loss(data, part[rows], advantage[rows], clip, sequences)

        optimizer.zero_grad()
        return self.chunks.mean_loss(optimizer.parameters, loss_of, count, chunk, shards.weight(count))

    def _adapt_step(
        self, data: dict[str, Any], gradient: Callable[[], Metrics], rows: Tensor, sequences: Sequences | None
    ) -> None:
        """Adapt the learning rate, if it is time to, before the step whose gradient has been found.

        Args:
            data: the rollout's rows.
            gradient: finds the gradient on the minibatch of the step.
            rows: those on which policy and values should not move far.
            sequences: with memory, the sequences that these are.
        """
        assert self.step_size is not None
        if self._steps % self.config.apo_every == 0:
            rows = rows[: self.core.chunk] if sequences is None else rows
            with torch.no_grad():
                before = self._outputs(data, rows, sequences)

            def gradient_ahead() -> None:
                gradient()
                params, value = self._outputs(data, rows, sequences)
                mask = data.get("mask")
                kl = self.core.distribution.kl(before[0], params, None if mask is None else pick(mask, rows)).mean()
                moved = kl + self.config.value_coef * 0.5 * (value - before[1]).square().mean()
                (self.config.apo_function * moved).backward()

            self.step_size.look_ahead(self.core.optimizer, gradient_ahead)
            self.core.optimizer.learning_rate = self.step_size.learning_rate
        self._steps += 1

    def _outputs(self, data: dict[str, Any], rows: Tensor, sequences: Sequences | None) -> tuple[Tensor, Tensor]:
        """The policy's parameters and the values at some rows."""
        obs, network = pick(data["obs"], rows), self.core.network
        found: tuple[Tensor, Tensor] = network(obs) if sequences is None else network.unroll(obs, sequences)
        return found

    def _loss(
        self,
        data: dict[str, Any],
        index: Tensor,
        advantage: Tensor,
        clip: float,
        sequences: Sequences | None = None,
    ) -> tuple[Tensor, Metrics]:
        config, distribution, network = self.config, self.core.distribution, self.core.network
        data = pick(data, index)
        mask = data.get("mask")
        params, value = network(data["obs"]) if sequences is None else network.unroll(data["obs"], sequences)
        log_prob, entropy = distribution.log_prob_and_entropy(params, mask, data["sample"])
        log_ratio = log_prob - data["log_prob"]
        ratio = probability_ratio(log_ratio)
        if config.objective == "clip":
            surrogate = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        elif config.objective == "dpo":
            drift = learned_drift(ratio, log_ratio, advantage, config.dpo_alpha, config.dpo_beta)
            surrogate = ratio * advantage - drift
        else:
            surrogate = ratio * advantage - self.kl_coef * distribution.kl(data["params"], params, mask)
        policy_loss, value_loss = -surrogate.mean(), 0.5 * (value - data["target"]).square().mean()
        entropy = entropy.mean()
        with torch.no_grad():
            # Schulman's estimator of KL(old || new), never negative: E[(r - 1) - log r].
            approx_kl = (ratio - 1 - log_ratio).mean()
            clip_fraction = ((ratio - 1).abs() > clip).float().mean()
        loss = policy_loss + config.value_coef * value_loss - self._entropy_coef * entropy
        return loss, {
            "policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "entropy": entropy.detach(),
            "approx_kl": approx_kl, "clip_fraction": clip_fraction,
        }  # fmt: skip

    def _summary(self, metrics: list[Metrics], data: dict[str, Any]) -> dict[str, float]:
        """Means over the rollout's gradient steps, and the state after the last; read from the device once."""
        names = list(metrics[0])
        table = torch.stack([torch.stack([step[name].float() for name in names]) for step in metrics])
        variance = explained_variance(data["value"], data["target"])
        numbers = torch.cat([table.mean(0), table[-1], variance.view(1)]).tolist()
        result = dict(zip(names, numbers, strict=False))
        # The KL is that of the last step: how far the policy has moved in total.
        result["approx_kl"] = numbers[len(names) + names.index("approx_kl")]
        return result | {"explained_variance": numbers[-1], "learning_rate": self.core.optimizer.learning_rate}

    @torch.no_grad()
    def _adapt_kl(self, data: dict[str, Any], sequences: Sequences | None) -> None:
        new = self._policy(data, sequences)
        kls = self.core.distribution.kl(data["params"], new, data.get("mask"))
        kl = float(shards.mean(kls.mean(), shards.weight(len(kls))))
        if kl > 1.5 * self.config.adaptive_target_kl:
            self.kl_coef = min(2 * self.kl_coef, 1e4)
        elif kl < self.config.adaptive_target_kl / 1.5:
            self.kl_coef = max(self.kl_coef / 2, 1e-4)

    def state_dict(self) -> dict[str, Tensor]:
        """Network, optimiser, moments, the bonus, the reward scale, the KL weight and the learned step size."""
        state = super().state_dict() | {"kl_coef": torch.tensor(self.kl_coef, dtype=torch.float64)}
        if self.step_size is not None:
            state |= self.step_size.state_dict() | {"gradient_steps": torch.tensor(self._steps)}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        super().load_state_dict(state)
        self.kl_coef = float(state["kl_coef"])
        if self.step_size is not None:
            self.step_size.load_state_dict(state)
            self._steps = int(state["gradient_steps"])
            self.core.optimizer.learning_rate = self.step_size.learning_rate


def _rows_of(sequences: Sequences) -> Batch:
    return sequences.rows, sequences
