"""DiscoRL: an agent whose update rule was discovered by meta-learning, not written by hand.

Oh et al., "Discovering state-of-the-art reinforcement learning algorithms" (Nature 2025); reference:
google-deepmind/disco_rl. The agent predicts a policy pi(.|s), a vector y(s) without fixed meaning, and for each action
z(s, a), likewise, action values q(s, a) and the next policy p(s, a). An update takes a batch of replayed windows:

    the rule reads the windows and the predictions of the network and of a slow copy of it, and says targets
    minimise KL(pi^ || pi) + KL(y^ || y) + KL(z^ || z_a) + KL(pi(s') || p_a) + 0.2 CE(two-hot Retrace target, q_a)

KL(pi(s') || p_a) counts 0 where the episode terminated. pi^, y^ and z^ come from the rule and are constants. Adam's
update is clipped to 1 for each weight (not the gradient); the slow copy moves a tenth of the way at each update.

The rule is the published Disco103, from a file that you have (:mod:`~mlbits.agents.disco.rule_file`). It is never
changed; its memory of the lifetime is part of the agent's state, as are the scale of advantages, the slow copy and the
windows.

Differs: the reference's rollouts have a row for the end of an episode, whose action is ignored, and mask it; on its own
Catch, which resets in the same step, that masks the first real step of each episode. Here nothing is masked
(:mod:`~mlbits.agents.disco.windows`). Episodes cut by a limit lead to their own last observation; there they count as
terminated.

Example:
    mlbits train disco mlbits/Catch-v0 --agent.rule disco_103.npz
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

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
from mlbits.agents.disco.clipped_adam import ClippedAdam
from mlbits.agents.disco.network import DiscoNetwork
from mlbits.agents.disco.rule import Experience, Memory, Predictions, Rule, of_action
from mlbits.agents.disco.rule_file import NAME, read_rule
from mlbits.agents.disco.values import Scale, expected, retrace, two_hot
from mlbits.agents.disco.windows import WindowBatch, Windows
from mlbits.agents.maths.action_distributions import Categorical
from mlbits.agents.maths.return_distributions import categorical_loss
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at
from mlbits.envs.core.spaces import action_layout


@configuration(AgentError)
class DiscoConfig:
    """Settings of a DiscoRL agent; defaults of the reference's Disco103, and its notebook's replay."""

    run_defaults = (("num_envs", 2),)

    rule: str = setting("", f"file of the discovered rule, {NAME}, which mlbits does not come with; see docs/disco.md")
    num_steps: int = setting(29, "steps T of each copy per rollout, which make a window", low=1, high=1e5)
    batch_size: int = setting(64, "windows per update; there is none before so many are stored", low=1, high=1e5)
    buffer_size: int = setting(1024, "number of windows stored", low=1, high=1e7)
    replay_ratio: float = setting(32.0, "how often each window is used on average", low=1e-3, high=1e5)
    learning_rate: Scheduled = setting(3e-4, "learning rate of Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(False, "decay the learning rate, if it is a number, linearly to 0 over the run")
    max_update: float = setting(
        1.0, "largest size of Adam's update of a weight, before the learning rate", low=1e-9, high=1e9
    )
    discount: float = setting(0.997, "discount factor, gamma", low=0, high=1)
    trace: float = setting(0.95, "lambda of the targets of action values", low=0, high=1)
    value_coef: float = setting(
        0.2, "weight of the loss of action values; the other parts have weight 1", low=0, high=1e3
    )
    target_rate: float = setting(0.1, "how far the slow copy moves to the network at each update", low=0, high=1)
    hidden: tuple[int, ...] = setting((512, 512), "widths of the layers below all predictions", low=1)

    def check(self) -> None:
        """Refuse a batch that can never be drawn."""
        if self.batch_size > self.buffer_size:
            raise AgentError(
                f"batch_size: got {self.batch_size} with buffer_size={self.buffer_size}; wanted at most that"
            )


class Disco:
    """A DiscoRL agent for one seat's spaces.

    The rule's file is read when the agent is about to learn (:meth:`prepare_to_learn`); acting does without it.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete.
        seed: seed of the initial weights.
        device: the networks' device.
    """

    def __init__(
        self,
        config: DiscoConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        layout = action_layout(action_space)
        if layout.kind != "discrete":
            raise AgentError(f"disco: got the action space {action_space}; wanted Discrete")
        self.config, self.device = config, torch.device(device)
        self.distribution = Categorical(layout.nvec[0])
        self.network = DiscoNetwork(observation_space, layout.nvec[0], config.hidden, network_generator(seed)).to(
            device
        )
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = ClippedAdam(self.network.parameters(), config.max_update)
        self.windows = Windows(config.buffer_size)
        self.scale = Scale.new(device)
        self.lifetime: Memory = Rule.new_lifetime(device)
        self.owed = 0.0  # updates, as a fraction of one
        self._rule: Rule | None = None

    @property
    def experience(self) -> RolloutSpec:
        """Windows of ongoing play."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False)

    def prepare_to_learn(self) -> None:
        """Read the rule.

        Raises:
            AgentError: if its file is missing, or is not the published one.
        """
        self._the_rule()

    def _the_rule(self) -> Rule:
        if self._rule is None:
            self._rule = Rule(read_rule(self.config.rule), self.device)
        return self._rule

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose actions for N rows of observations.

        Raises:
            AgentError: if there are masks of legal actions.
        """
        logits = self._logits(obs, legal_mask)
        action = self.distribution.mode(logits, None) if greedy else self.distribution.sample(logits, None, generator)
        log_prob = self.distribution.log_prob(logits, None, action)
        return Decision(action, action, log_prob, notes={"behaviour": logits})

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Action probabilities pi(a|s), float64 [N, A]."""
        return self.distribution.probabilities(self._logits(obs, legal_mask), None, greedy)

    @torch.no_grad()
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probabilities of actions, [N]."""
        return self.distribution.log_prob(self._logits(obs, legal_mask), None, action)

    def draw_log_prob(self, obs: Any, legal_mask: Tensor | None, draw: Tensor) -> Tensor:
        """Log probabilities of draws, which are the actions, [N]."""
        return self.action_log_prob(obs, legal_mask, draw)

    @torch.no_grad()
    def state_values(self, obs: Any) -> Tensor:
        """V of N rows of observations, sum_a pi(a|s) Q(s, a), [N]."""
        logits, q = self.network.q(obs)
        return (torch.softmax(logits, -1) * expected(q)).sum(-1)

    def _logits(self, obs: Any, legal_mask: Tensor | None) -> Tensor:
        if legal_mask is not None:
            raise AgentError("legal_mask: got action masks, which the rule has not met; wanted none")
        return self.network.policy(obs)

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """Store the windows of a rollout, and make the updates that are due.

        Args:
            rollout: experience of the current policy, with the behaviour's logits in its notes.
            progress: fraction of the run that is over, 0..1.
            generator: draws the windows; on the CPU.

        Returns:
            Losses, entropies, gradient norm, number of updates, all means over the updates; empty without one.
        """
        config = self.config
        self.optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr)
        fresh = self.windows.add(rollout)
        if self.windows.count < config.batch_size:
            return {}
        self.owed += fresh * config.replay_ratio / config.batch_size
        found: list[dict[str, Tensor]] = []
        while self.owed >= 1:
            self.owed -= 1
            found.append(self._update(self.windows.sample(config.batch_size, generator)))
        if not found:
            return {}
        means = torch.stack([torch.stack([*metrics.values()]) for metrics in found]).mean(0).tolist()
        numbers = dict(zip(found[0], means, strict=True))
        return numbers | {"updates": float(len(found)), "learning_rate": self.optimizer.learning_rate}

    def _update(self, batch: WindowBatch) -> dict[str, Tensor]:
        """One gradient step on a batch of windows."""
        config, steps = self.config, batch.action.numel()
        online = self.network(batch.obs)
        with torch.no_grad():
            constant, slow = Predictions(*(part.detach() for part in online)), self.target(batch.obs)
            seen, q_target = self._experience(batch, constant, slow)
            aims, self.lifetime = self._the_rule()(seen, constant, slow, self.lifetime)
            for behind, ahead in zip(self.target.parameters(), self.network.parameters(), strict=True):
                behind.lerp_(ahead, config.target_rate)

        action = batch.action.flatten()
        now = Predictions(*(part[:steps] for part in online))
        terms = {
            "policy_loss": kl(aims.policy.flatten(0, 1), now.policy),
            "y_loss": kl(aims.y.flatten(0, 1), now.y),
            "z_loss": kl(aims.z.flatten(0, 1), of_action(now.z, action)),
            "next_policy_loss": kl(constant.policy[batch.following.flatten()], of_action(now.next_policy, action))
            * ~batch.terminated.flatten(),
            "value_loss": categorical_loss(of_action(now.q, action), two_hot(q_target.flatten())),
        }
        losses = {name: term.mean() for name, term in terms.items()}
        total = sum(losses.values()) + (config.value_coef - 1) * losses["value_loss"]
        self.optimizer.zero_grad()
        total.backward()
        norm = self.optimizer.step()
        entropies = {"entropy": now.policy, "target_entropy": aims.policy.flatten(0, 1)}
        return {
            **{name: loss.detach() for name, loss in losses.items()},
            **{name: self.distribution.entropy(logits.detach(), None).mean() for name, logits in entropies.items()},
            "advantage_deviation": seen.advantage.std(), "grad_norm": norm,
        }  # fmt: skip

    def _experience(self, batch: WindowBatch, online: Predictions, target: Predictions) -> tuple[Experience, Tensor]:
        """What the rule reads beside predictions, and the targets of the values of the actions taken, [T, B]."""
        config, action = self.config, batch.action
        steps, copies = action.shape
        policy = torch.softmax(online.policy, -1)
        value = (policy * expected(online.q)).sum(-1)
        target_q = expected(target.q)
        target_value = (policy * target_q).sum(-1)

        def now(rows: Tensor) -> Tensor:
            return rows[: steps * copies].view(steps, copies, *rows.shape[1:])

        log_pi, log_mu = (
            of_action(torch.log_softmax(logits, -1), action) for logits in (now(online.policy), batch.behaviour)
        )
        ended = batch.terminated | batch.truncated
        q_target = retrace(
            batch.reward, config.discount * (~batch.terminated).to(value.dtype), ended, target_value[batch.following],
            of_action(now(target_q), action), config.trace * (log_pi - log_mu).exp().clamp(max=1),
        )  # fmt: skip
        advantage, q_advantage = q_target - now(target_value), now(target_q) - now(target_value)[..., None]
        self.scale = self.scale.updated(advantage)
        seen = Experience(
            following=batch.following, action=action, reward=batch.reward, terminated=batch.terminated, ended=ended,
            behaviour=batch.behaviour, value=value, advantage=advantage, normalised=self.scale.normalised(advantage),
            q=now(target_q), q_advantage=q_advantage, q_normalised=self.scale.normalised(q_advantage),
        )  # fmt: skip
        return seen, q_target

    def state_dict(self) -> dict[str, Tensor]:
        """Network; and what the update keeps: the slow copy, Adam, the lifetime's memory, the scale, the windows."""
        kept = {
            **prefixed("adam", self.optimizer.state_dict()), **prefixed("target", self.target.state_dict()),
            **prefixed("windows", self.windows.state_dict()), "lifetime": torch.stack([*self.lifetime]),
            "scale": torch.stack([*self.scale]), "owed": torch.tensor(self.owed, dtype=torch.float64),
        }  # fmt: skip
        state = prefixed("network", self.network.state_dict()) | prefixed("optimizer", kept)
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this agent.
        """
        kept = unprefixed("optimizer", state)
        load_weights({"network": self.network}, state)
        load_weights({"target": self.target}, kept)
        self.optimizer.load_state_dict(unprefixed("adam", kept))
        self.windows.load_state_dict(unprefixed("windows", kept), self.device)
        self.lifetime = Memory(*kept["lifetime"].to(self.device).clone())
        self.scale = Scale(*kept["scale"].to(self.device).clone())
        self.owed = float(kept["owed"])


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)), [N]; the target is a constant."""
    log_target = torch.log_softmax(target.detach(), -1)
    return (log_target.exp() * (log_target - torch.log_softmax(logits, -1))).sum(-1)
