"""The agent that learns by a rule: what the rule is told, the update, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, Rollout
from mlbits.agents.learned_rules.files import save_rule
from mlbits.agents.learned_rules.meta_gradient import targets_of
from mlbits.agents.learned_rules.populations import Hyper, Lesson, TabularAgents, look
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig
from mlbits.agents.lpg import LPG, LPGConfig
from mlbits.cli import main
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.session import open_session

T, B, S, A, M = 5, 4, 6, 3, 5
STATES, VECTORS, IMAGES = (
    spaces.Discrete(S),
    spaces.Box(-1, 1, (4,), np.float32),
    spaces.Box(0, 1, (10, 10, 2), np.uint8),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("rules") / "rule.safetensors"
    rule = LPGRule(RuleConfig(predictions=M, hidden=4), seed=2)
    with torch.no_grad():
        rule.heads.mul_(5)
    save_rule(found, rule, learning_rate=30, alpha=0.5, about={})
    return found


def agent(path: Path, observations: Any = STATES, actions: int = A, seed: int = 0, **settings: Any) -> LPG:
    config = LPGConfig(rule=str(path), num_steps=T, **settings)
    return LPG(config, observations, spaces.Discrete(actions), seed=seed)


def rollout(observations: Any = STATES, seed: int = 0, seats: int = 1, **more: Any) -> Rollout:
    generator, lead = torch.Generator().manual_seed(seed), (T, B, seats)

    def seen(*shape: int) -> torch.Tensor:
        if isinstance(observations, spaces.Discrete):
            return torch.randint(S, shape, generator=generator, dtype=torch.int32)
        return torch.rand(*shape, *observations.shape, generator=generator).to(getattr(torch, observations.dtype.name))

    ends = torch.rand(2, T, B, generator=generator) < 0.2
    return Rollout(
        obs=seen(*lead), last_obs=seen(B, seats), final_obs=seen(*lead),
        sample=torch.randint(A, lead, generator=generator), log_prob=torch.zeros(lead),
        reward=torch.randn(lead, generator=generator), terminated=ends[0], truncated=ends[1],
        legal_mask=None, active=None, **more,
    )  # fmt: skip


def learn(learner: LPG, *rollouts: Rollout) -> dict[str, float]:
    metrics: Any = {}
    for one in rollouts:
        metrics = learner.learn(one, 0.5, torch.Generator())
    return dict(metrics)


def test_a_table_is_updated_as_an_agent_of_meta_training(path: Path) -> None:
    """Two updates from random experience are those of a population of one, with its closed form."""
    mine, population = agent(path), TabularAgents(S, A, M)
    state = {"table": torch.zeros(1, S, A + M)}
    for seed in range(2):
        one = rollout(seed=seed)
        learn(mine, one)
        following = torch.cat([one.obs[1:], one.last_obs[None]])
        cut = (one.truncated & ~one.terminated)[..., None]
        following = torch.where(cut, one.final_obs, following)
        lesson = Lesson(
            *(part[:, None, :, 0].long() for part in (one.obs, following)), one.sample[:, None, :, 0],
            one.reward[:, None, :, 0], one.terminated[:, None], (one.truncated & ~one.terminated)[:, None],
        )  # fmt: skip
        outputs = look(population, state, lesson)
        said = targets_of(mine.rule, lesson, outputs)
        state = population.update(state, lesson, outputs, said, Hyper(torch.tensor([30.0]), torch.tensor([0.5])))
        torch.testing.assert_close(mine.network.table.detach(), state["table"][0].detach(), rtol=1e-4, atol=1e-5)
    assert float(state["table"].abs().max()) > 0.1


@pytest.mark.parametrize("observations", [VECTORS, IMAGES, spaces.MultiDiscrete([3, 2])])
def test_a_network_learns_by_the_same_targets(path: Path, observations: Any) -> None:
    learner = agent(path, observations)
    one = rollout(observations) if not isinstance(observations, spaces.MultiDiscrete) else rollout(VECTORS)
    if isinstance(observations, spaces.MultiDiscrete):
        pairs = (torch.zeros(*part.shape[:-1], 2, dtype=torch.int32) for part in (one.obs, one.last_obs, one.final_obs))
        one = dataclasses.replace(one, **dict(zip(("obs", "last_obs", "final_obs"), pairs, strict=True)))
    before = learner.state_dict()
    metrics = learn(learner, one)
    after = learner.state_dict()
    assert learner.optimizer is not None and metrics["grad_norm"] > 0 and metrics["learning_rate"] == 1e-3
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("network"))


def test_the_rule_is_told_where_episodes_end_and_what_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, seen = agent(path, reward_scale=0.5), list[tuple[torch.Tensor, ...]]()
    learn(learner, rollout(seed=7), rollout(seed=8))
    forward = learner.rule.forward
    monkeypatch.setattr(learner.rule, "forward", lambda *read: seen.append(read) or forward(*read))
    one = rollout()
    y = {name: learner.predictions(part.flatten()).view(*part.shape, M)
         for name, part in (("obs", one.obs), ("last", one.last_obs), ("final", one.final_obs))}  # fmt: skip
    learn(learner, one)
    reward, terminated, truncated, _, here, following = seen[0]
    assert torch.equal(reward, 0.5 * one.reward) and torch.equal(terminated[..., 0], one.terminated)
    assert torch.equal(truncated[..., 0], one.truncated & ~one.terminated) and torch.equal(here, y["obs"])
    for t in range(T):
        for b in range(B):
            cut = bool(one.truncated[t, b] and not one.terminated[t, b])
            wanted = y["final"][t, b] if cut else (y["last"][b] if t == T - 1 else y["obs"][t + 1, b])
            assert torch.equal(following[t, b], wanted), (t, b)
    assert bool(truncated.any())


def test_only_the_learners_own_steps_count(path: Path) -> None:
    active = torch.ones(T, B, 2, dtype=torch.bool)
    active[:, :, 1] = False
    one = dataclasses.replace(rollout(seats=2), active=active)
    other = dataclasses.replace(one, reward=one.reward.clone(), obs=one.obs.clone())
    other.reward[:, :, 1] += 5
    other.obs[:, :, 1] = 0
    a, b = agent(path), agent(path)
    learn(a, one)
    learn(b, other)
    assert torch.equal(a.network.table, b.network.table)
    assert learn(a, dataclasses.replace(one, active=torch.zeros_like(active))) == {}


def test_the_rule_stays_as_it_is(path: Path) -> None:
    learner = agent(path, VECTORS)
    before = {name: value.clone() for name, value in learner.rule.state_dict().items()}
    learn(learner, rollout(VECTORS))
    assert all(torch.equal(value, before[name]) for name, value in learner.rule.state_dict().items())
    assert not any(name.startswith("rule") for name in learner.state_dict())


def test_a_saved_agent_goes_on_as_it_would_have(path: Path) -> None:
    for observations in (STATES, VECTORS):
        one, two = agent(path, observations), agent(path, observations, seed=1)
        learn(one, rollout(observations))
        two.load_state_dict(one.state_dict())
        for learner in (one, two):
            learn(learner, rollout(observations, seed=1))
        assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_another_rule_than_the_runs_own_is_refused(path: Path, tmp_path: Path) -> None:
    config, note = LPGConfig(rule=str(path)).settled(torch.device("cpu"))
    assert note == "" and config.rule == str(path.resolve()) and len(config.rule_hash) == 64
    assert config.settled(torch.device("cpu"))[0] == config
    save_rule(tmp_path / "other", LPGRule(RuleConfig(predictions=M, hidden=4)), learning_rate=1, alpha=1, about={})
    with pytest.raises(AgentError, match=r"rule: .*other has the digest .*; wanted"):
        dataclasses.replace(config, rule=str(tmp_path / "other")).settled(torch.device("cpu"))
    with pytest.raises(AgentError, match=r"rule: .*nowhere is not there"):
        LPGConfig(rule=str(tmp_path / "nowhere")).settled(torch.device("cpu"))


def test_weights_of_a_rule_with_other_predictions_are_refused(path: Path, tmp_path: Path) -> None:
    save_rule(tmp_path / "other", LPGRule(RuleConfig(predictions=M + 1, hidden=4)), learning_rate=1, alpha=1, about={})
    with pytest.raises(AgentError, match="weights do not fit this agent's network"):
        agent(tmp_path / "other").load_state_dict(agent(path).state_dict())


def test_the_rule_has_a_short_flag_too(path: Path) -> None:
    for words in (["--rule", str(path)], [f"--rule={path}"], ["--agent.rule", str(path)]):
        assert parse_train(["lpg", "mlbits/GridWorld-v0", *words])[0].agent_config.rule == str(path)
    with pytest.raises(ConfigError, match="--rule"):
        parse_train(["ppo", "mlbits/GridWorld-v0", "--rule", str(path)])


def test_masks_are_refused_by_name(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lpg: got mlbits/TicTacToe-v0, some of whose actions are illegal at times"):
        open_session(resolve("lpg", "mlbits/TicTacToe-v0"))
    with pytest.raises(AgentError, match="legal_mask: got action masks"):
        agent(path).act(torch.zeros(1, dtype=torch.int32), torch.ones(1, A, dtype=torch.bool), torch.Generator())


def test_continuous_actions_are_refused_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "lpg", "mlbits/Pendulum-v0", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: lpg: got the action space Box") and "wanted one that is discrete" in said
    assert not (tmp_path / "run").exists()


def test_it_learns_a_gridworld_with_the_rule_that_is_shipped(tmp_path: Path) -> None:
    """The best return is 0.96; an agent that stays as it was born has -0.6."""
    import mlbits

    run = mlbits.train(
        "lpg", "mlbits/GridWorld-v0", env_settings={"map": "russell_norvig"}, out=tmp_path / "run", total_steps=20_000,
        seed=0, eval_every=0, checkpoint_every=0, console=False, measure=None, device="cpu",
    )  # fmt: skip
    assert run.summary["return_mean"] > 0.9
