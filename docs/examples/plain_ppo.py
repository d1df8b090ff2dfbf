"""PPO in one file: proximal policy optimisation in plain PyTorch, from top to bottom.

Schulman et al., "Proximal Policy Optimization Algorithms" (2017), for discrete actions, with or without masks, and for
observations that are an index or a box of numbers. One policy plays all seats of a game. ``mlbits train ppo`` does
the same and much more (any space, turn-based games, opponents, checkpoints, GPUs); test_plain_ppo.py checks that both
updates are equal on the same data.

Example:
    python docs/examples/plain_ppo.py
    python docs/examples/plain_ppo.py mlbits/CartPole-v0 --num-envs 8 --num-steps 256 --total-steps 100000
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, fields
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

import mlbits


@dataclass(frozen=True)
class Settings:
    """Settings, each also a flag of the same name; tuned for GridWorld."""

    num_envs: int = 64  # copies of the game, B
    num_steps: int = 32  # steps of each copy in a rollout, T
    total_steps: int = 150_000  # steps of all copies in the whole run
    learning_rate: float = 2.5e-3  # of Adam; decays linearly to 0
    discount: float = 0.99  # gamma
    gae_lambda: float = 0.95  # 1: advantages from whole returns; 0: from the next value only
    epochs: int = 4  # passes over each rollout
    minibatches: int = 4  # gradient steps in each pass
    clip_coef: float = 0.2  # beyond 1 plus or minus this, a ratio gains nothing more
    entropy_coef: float = 0.05  # weight of the entropy bonus, which keeps the policy exploring
    value_coef: float = 0.5  # weight of the value's loss
    max_grad_norm: float = 0.5  # gradients are clipped to this L2 norm
    hidden: int = 64  # width of the hidden layer
    seed: int = 0


# 1. The network: a policy pi(a|s) and a value V(s), each an MLP of its own.


def layer(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights, drawn from the generator, and biases of 0."""
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear


class Network(nn.Module):
    """Logits and values of N observations."""

    def __init__(self, space: spaces.Space[Any], num_actions: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.discrete = isinstance(space, spaces.Discrete)
        inputs = int(space.n) if isinstance(space, spaces.Discrete) else spaces.flatdim(space)
        # The small last gain makes the first policy nearly uniform.
        self.actor, self.critic = (
            nn.Sequential(layer(inputs, hidden, 2**0.5, generator), nn.Tanh(), layer(hidden, outputs, gain, generator))
            for outputs, gain in ((num_actions, 0.01), (1, 1.0))
        )

    def forward(self, obs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log probabilities of all actions [N, A], illegal ones far below the others, and values [N]."""
        inputs = nn.functional.one_hot(obs.long(), self.actor[0].in_features) if self.discrete else obs.flatten(1)
        logits = self.actor(inputs.float())
        if mask is not None:
            logits = logits.masked_fill(~mask, -1e9)
        return torch.log_softmax(logits, -1), self.critic(inputs.float()).squeeze(-1)


# 2. Play. Below, N is copies x seats: every seat of every copy is a row.


@torch.no_grad()
def collect(
    batch: Any, network: Network, num_steps: int, running: Tensor, generator: torch.Generator
) -> tuple[dict[str, Tensor], list[float]]:
    """Play T steps of all copies.

    Args:
        batch: the copies, which continue from their current state; episodes that end are reset in the same step.
        network: the policy that plays.
        num_steps: T.
        running: returns so far of the unfinished episodes [N], updated in place.
        generator: random generator for the actions.

    Returns:
        Tensors [T, N, ...] by name, with ``next_value``, the next value of each step; and the returns of the
        episodes that ended.
    """
    steps, returns = [], []
    for _ in range(num_steps):
        # The batch's tensors are overwritten by the next step: keep copies.
        obs = batch.obs.flatten(0, 1).clone()
        mask = None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1).clone()
        log_probs, value = network(obs, mask)
        action = torch.multinomial(log_probs.exp(), 1, generator=generator)
        played = batch.step(action.view(batch.reward.shape))
        reward = played.reward.flatten().clone()
        # An episode ends for all seats of its copy. Terminated: the game is over, and the next value is 0.
        # Truncated: a limit cut it, and the next value is that of its last observation.
        terminated, truncated = (end[:, None].expand_as(played.reward).flatten() for end in played[2:4])
        ended = terminated | truncated
        row = {"obs": obs, "action": action.squeeze(-1), "value": value, "reward": reward, "ended": ended}
        row["log_prob"] = log_probs.gather(-1, action).squeeze(-1)
        row["next_value"] = network(played.obs.flatten(0, 1), None)[1]
        if truncated.any():
            row["next_value"] = torch.where(
                truncated, network(played.final_obs.flatten(0, 1), None)[1], row["next_value"]
            )
        row["next_value"] = row["next_value"].masked_fill(terminated, 0.0)
        steps.append(row if mask is None else row | {"mask": mask})
        running += reward
        returns += running[ended].tolist()
        running[ended] = 0.0
    return {name: torch.stack([row[name] for row in steps]) for name in steps[0]}, returns


# 3. Learn from the rollout.


def advantages(rollout: dict[str, Tensor], discount: float, gae_lambda: float) -> Tensor:
    """How much better each action was than the policy's mean, by generalised advantage estimation, [T, N].

    A_t = delta_t + gamma lambda A_{t+1} within an episode, with delta_t = r_t + gamma V(s_{t+1}) - V(s_t).
    """
    delta = rollout["reward"] + discount * rollout["next_value"] - rollout["value"]
    advantage, following = torch.zeros_like(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        advantage[t] = following = delta[t] + discount * gae_lambda * following * ~rollout["ended"][t]
    return advantage


def ppo_loss(network: Network, data: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    """The loss to minimise on a minibatch of M rows, and its three parts; equations 7 and 9 of the paper."""
    log_probs, value = network(data["obs"], data.get("mask"))
    log_prob = log_probs.gather(-1, data["action"][:, None]).squeeze(-1)
    ratio = (log_prob - data["log_prob"]).exp()  # pi(a|s) / pi_old(a|s)
    advantage = (data["advantage"] - data["advantage"].mean()) / (data["advantage"].std() + 1e-8)
    clipped = ratio.clamp(1 - settings.clip_coef, 1 + settings.clip_coef)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * (value - data["target"]).square().mean()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    loss = policy_loss + settings.value_coef * value_loss - settings.entropy_coef * entropy
    return {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}


def update(
    network: Network,
    optimizer: torch.optim.Optimizer,
    rollout: dict[str, Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """Epochs of minibatches on one rollout; returns the losses and entropy of each gradient step."""
    advantage = advantages(rollout, settings.discount, settings.gae_lambda)
    data = rollout | {"advantage": advantage, "target": advantage + rollout["value"]}
    data = {name: tensor.flatten(0, 1) for name, tensor in data.items()}  # T steps of N rows become T * N rows
    measured = []
    for _ in range(settings.epochs):
        for part in torch.randperm(len(data["action"]), generator=generator).tensor_split(settings.minibatches):
            losses = ppo_loss(network, {name: tensor[part] for name, tensor in data.items()}, settings)
            optimizer.zero_grad()
            losses["loss"].backward()
            grad_norm = nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
            optimizer.step()
            measured.append(
                {name: float(value.detach()) for name, value in (losses | {"grad_norm": grad_norm}).items()}
            )
    return measured


# 4. The run: collect, learn, print.


def train(env_id: str, settings: Settings) -> tuple[Network, list[float]]:
    """A whole run; returns the network and the mean return of the episodes that ended in each line printed."""
    batch = mlbits.make_batch(env_id, settings.num_envs, seed=settings.seed)
    space, actions = batch.observation_space, batch.action_space
    if not isinstance(actions, spaces.Discrete) or not isinstance(space, (spaces.Discrete, spaces.Box)):
        raise SystemExit(f"{env_id}: got observations {space} and actions {actions}; wanted Discrete actions, and "
                         "Discrete or Box observations")  # fmt: skip
    if batch.active is not None:
        raise SystemExit(f"{env_id}: got a game in which seats wait for their turns; wanted one in which all act")
    generator = torch.Generator().manual_seed(settings.seed)
    network = Network(space, int(actions.n), settings.hidden, generator)
    optimizer = torch.optim.Adam(network.parameters(), eps=1e-5)
    running, recent, curve = torch.zeros(batch.reward.numel()), [], []
    per_rollout, start = settings.num_envs * settings.num_steps, time.perf_counter()
    iterations = max(1, settings.total_steps // per_rollout)
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - iteration / iterations)
        rollout, returns = collect(batch, network, settings.num_steps, running, generator)
        measured = update(network, optimizer, rollout, settings, generator)
        recent += returns
        if recent and ((iteration + 1) % max(1, iterations // 20) == 0 or iteration + 1 == iterations):
            curve.append(sum(recent) / len(recent))
            print(f"step {(iteration + 1) * per_rollout:>9,}  return {curve[-1]:8.3f}  "
                  f"entropy {measured[-1]['entropy']:.3f}  {time.perf_counter() - start:5.1f} s")  # fmt: skip
            recent = []
    return network, curve


if __name__ == "__main__":
    torch.set_num_threads(1)  # networks this small are slower on several
    parser = argparse.ArgumentParser(description="PPO in one file.")
    parser.add_argument("env_id", nargs="?", default="mlbits/GridWorld-v0")
    for field in fields(Settings):
        parser.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), default=field.default)
    chosen = vars(parser.parse_args())
    train(chosen.pop("env_id"), Settings(**chosen))
