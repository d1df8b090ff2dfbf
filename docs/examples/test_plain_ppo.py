"""PPO in one file: rollouts, losses, gradients and weights equal those of ``mlbits.agents.ppo``, and it learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import plain_ppo
import pytest
import torch
from torch import Tensor

import mlbits
from mlbits.agents.agent import Rollout
from mlbits.agents.ppo import PPO, PPOConfig

# Observations that are an index, a vector with a mask, a vector of two seats with masks, a vector without. The settings
# make episodes end in either way within the rollout: games that are over, and limits.
GAMES: dict[str, dict[str, Any]] = {
    "mlbits/GridWorld-v0": {"horizon": 7},
    "mlbits/Knapsack-v0": {},
    "mlbits/Goofspiel-v0": {},
    "mlbits/CartPole-v0": {"horizon": 13},
}
SETTINGS = plain_ppo.Settings(num_envs=6, num_steps=24, hidden=16, learning_rate=3e-2, epochs=3, minibatches=3)


class Recorded:
    """A batch that records what the plain rollout lacks: final observations and how episodes end."""

    def __init__(self, batch: Any) -> None:
        self.batch, self.kept = batch, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch, name)

    def step(self, actions: Tensor) -> Any:
        """Step the batch and record."""
        played = self.batch.step(actions)
        self.kept.append([part.clone() for part in (played.terminated, played.truncated, played.final_obs)])
        return played


def draw() -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(3)


def pairs(network: plain_ppo.Network, agent: PPO) -> Iterator[tuple[Tensor, Tensor]]:
    """The same parameters in both, of one shape; the real network stores its first weights [in, out]."""
    real = agent.core.network
    for plain, real_mlp in ((network.actor, real.actor), (network.critic, real.critic)):
        yield plain[0].weight, real_mlp.first[0].t()
        yield plain[0].bias, real_mlp.biases[0]
        yield plain[2].weight, real_mlp.head
        yield plain[2].bias, real_mlp.head_bias


def both(env_id: str) -> tuple[plain_ppo.Network, dict[str, Tensor], PPO, Rollout]:
    """The plain network and its rollout, and the real agent with the same weights and the same rollout."""
    batch = Recorded(mlbits.make_batch(env_id, SETTINGS.num_envs, seed=1, **GAMES[env_id]))
    space, actions = batch.observation_space, batch.action_space
    network = plain_ppo.Network(space, int(actions.n), SETTINGS.hidden, draw())
    names = ("num_steps", "learning_rate", "discount", "gae_lambda", "epochs", "minibatches", "clip_coef",
             "entropy_coef", "value_coef", "max_grad_norm")  # fmt: skip
    config = PPOConfig(hidden=(SETTINGS.hidden,), **{name: getattr(SETTINGS, name) for name in names})
    agent = PPO(config, space, actions, seed=5)
    with torch.no_grad():
        network.actor[2].weight *= 50  # a policy with opinions, so that probabilities differ
        for plain, real in pairs(network, agent):
            real.copy_(plain)
    rollout, _ = plain_ppo.collect(batch, network, SETTINGS.num_steps, torch.zeros(batch.reward.numel()), draw())
    terminated, truncated, final_obs = (torch.stack(parts) for parts in zip(*batch.kept, strict=True))
    lead = (SETTINGS.num_steps, *batch.reward.shape)
    full = {name: tensor.unflatten(1, lead[1:]) for name, tensor in rollout.items()}
    return network, rollout, agent, Rollout(
        obs=full["obs"], last_obs=batch.obs.clone(), final_obs=final_obs, sample=full["action"],
        log_prob=full["log_prob"], reward=full["reward"], terminated=terminated, truncated=truncated,
        legal_mask=full.get("mask"), active=None,
    )  # fmt: skip


def close(one: Tensor, two: Tensor) -> None:
    """Assert that two tensors are equal to 1e-5."""
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("env_id", GAMES)
def test_actions_are_drawn_from_the_real_policy(env_id: str) -> None:
    """The real agent gives the actions played the same probabilities; illegal ones are never played."""
    _, rollout, agent, real = both(env_id)
    rows = {name: tensor.flatten(0, 1) for name, tensor in rollout.items()}
    probabilities = agent.action_probabilities(rows["obs"], rows.get("mask"))
    close(probabilities.gather(-1, rows["action"][:, None]).squeeze(-1).log().float(), rows["log_prob"])
    assert (real.terminated | real.truncated).any()
    assert real.legal_mask is None or real.legal_mask.gather(-1, real.sample[..., None]).all()


@pytest.mark.parametrize("env_id", GAMES)
def test_one_minibatch_step_equals_the_agents(env_id: str) -> None:
    """Advantages, and then the losses, gradients and weights of one step, on every second row.

    The policy has moved away from the one that played, so that ratios differ from 1 and some are clipped.
    """
    network, rollout, agent, real = both(env_id)
    data = agent._prepare(real)
    advantage = plain_ppo.advantages(rollout, SETTINGS.discount, SETTINGS.gae_lambda)
    close(advantage.flatten(), data["advantage"])
    with torch.no_grad():
        for plain, same in pairs(network, agent):
            plain += 0.5 * torch.randn(plain.shape, generator=draw())
            same.copy_(plain)
    target = advantage + rollout["value"]
    plain_data = {
        name: part.flatten(0, 1)[::2] for name, part in (rollout | {"advantage": advantage, "target": target}).items()
    }
    part = torch.arange(0, advantage.numel(), 2)
    losses = plain_ppo.ppo_loss(network, plain_data, SETTINGS)
    optimizer = torch.optim.Adam(network.parameters(), SETTINGS.learning_rate, eps=1e-5)
    losses["loss"].backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), SETTINGS.max_grad_norm)
    optimizer.step()
    found = agent._step(data, part, SETTINGS.clip_coef)
    assert found["clip_fraction"] > 0.02
    for name in ("policy_loss", "value_loss", "entropy"):
        close(losses[name].detach(), found[name])
    close(norm, found["grad_norm"])
    gradients = [(plain.grad, _real_gradient(real, agent)) for plain, real in pairs(network, agent)]
    for plain_gradient, real_gradient in gradients:
        close(plain_gradient, real_gradient)
    for plain, same in pairs(network, agent):
        close(plain.detach(), same.detach())


def _real_gradient(parameter: Tensor, agent: PPO) -> Tensor:
    """The gradient of a parameter, or of a transposed view of one."""
    own = parameter if parameter.is_leaf else parameter._base
    assert own is not None
    gradient = next(p.grad for p in agent.core.network.parameters() if p.data_ptr() == own.data_ptr())
    return gradient if parameter.is_leaf else gradient.t()


@pytest.mark.parametrize("env_id", GAMES)
def test_a_whole_update_equals_the_agents(env_id: str) -> None:
    """Nine steps of Adam, with the same minibatches, since both draw them from generators of one seed."""
    network, rollout, agent, real = both(env_id)
    before = [plain.detach().clone() for plain, _ in pairs(network, agent)]
    optimizer = torch.optim.Adam(network.parameters(), SETTINGS.learning_rate, eps=1e-5)
    measured = plain_ppo.update(network, optimizer, rollout, SETTINGS, draw())
    found = agent.learn(real, 0.0, draw())
    assert len(measured) == SETTINGS.epochs * SETTINGS.minibatches
    assert found["clip_fraction"] > 0.02
    for name in ("policy_loss", "value_loss", "entropy", "grad_norm"):
        mean = sum(step[name] for step in measured) / len(measured)
        assert mean == pytest.approx(found[name], rel=1e-5, abs=1e-5)
    for (plain, same), start in zip(pairs(network, agent), before, strict=True):
        assert (plain - start).abs().max() > 1e-3
        close(plain.detach(), same.detach())


def test_it_solves_gridworld(capsys: pytest.CaptureFixture[str]) -> None:
    """The optimum is 14 steps, 13 of which cost 0.01, so a return of 0.87; training episodes come near it."""
    _, curve = plain_ppo.train("mlbits/GridWorld-v0", plain_ppo.Settings(total_steps=100_000, seed=7))
    assert curve[0] < 0
    assert curve[-1] > 0.8
    assert len(capsys.readouterr().out.splitlines()) == len(curve)


@pytest.mark.parametrize("env_id", ["mlbits/Pendulum-v0", "mlbits/DiplomacyMini-v0"])
def test_unsupported_games_are_refused(env_id: str) -> None:
    """Continuous actions, and a board."""
    with pytest.raises(SystemExit, match=f"(?s){env_id}: got observations .* wanted Discrete actions"):
        plain_ppo.train(env_id, SETTINGS)
