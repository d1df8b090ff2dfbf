"""The DiscoRL agent: its losses by torch's own distributions, its optimiser, resuming, what it refuses, and Catch."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical, kl_divergence

from mlbits.agents.agent import AgentError, split_optimizers
from mlbits.agents.disco.agent import Disco, DiscoConfig
from mlbits.agents.disco.clipped_adam import ClippedAdam
from mlbits.agents.disco.values import expected, squashed
from mlbits.cli import main
from mlbits.evals.evaluate import load_agent
from mlbits.selfplay.runs.flags import parse_train
from tests.agents.disco.made_up import SMALL, draw, made_up_rollout, make

VECTOR, THREE = spaces.Box(-5, 5, (4,), np.float32), spaces.Discrete(3)


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_losses_are_divergences_from_the_rules_targets(rule, monkeypatch):
    agent = make(rule, VECTOR, THREE)
    agent.windows.add(made_up_rollout(agent))
    drawn = agent.windows.batch(torch.arange(4))
    asked = []
    plain = agent._the_rule()

    def listening(*parts):
        asked.append((parts, plain(*parts)))
        return asked[-1][1]

    agent._rule = listening
    with torch.no_grad():
        online = agent.network(drawn.obs)
    found = agent._update(drawn)
    (seen, constant, slow, lifetime), (aims, after) = asked[0]
    assert torch.equal(lifetime.hidden, torch.zeros(128))
    assert torch.equal(agent.lifetime.hidden, after.hidden)
    assert not any(part.requires_grad for part in constant)
    rows, action = torch.arange(20), drawn.action.flatten()

    def divergence(target, logits):
        return kl_divergence(Categorical(logits=target), Categorical(logits=logits))

    policy = online.policy[drawn.following.flatten()]
    wanted = {
        "policy_loss": divergence(aims.policy.flatten(0, 1), online.policy[:20]),
        "y_loss": divergence(aims.y.flatten(0, 1), online.y[:20]),
        "z_loss": divergence(aims.z.flatten(0, 1), online.z[rows, action]),
        "next_policy_loss": divergence(policy, online.next_policy[rows, action]) * (~drawn.terminated.flatten()),
    }
    for name, loss in wanted.items():
        assert float(found[name]) == pytest.approx(float(loss.mean()), rel=1e-4), name
    # The value of the action taken is pulled to its target: at the target the cross-entropy is least.
    target = (seen.advantage + (torch.softmax(online.policy, -1) * expected(slow.q)).sum(-1)[:20].view(5, 4)).flatten()
    place = squashed(target) + 300
    low = place.floor().long()
    log_q = torch.log_softmax(online.q[rows, action], -1)
    share = place - low
    loss = -((1 - share) * log_q[rows, low] + share * log_q[rows, low + 1])
    assert float(found["value_loss"]) == pytest.approx(float(loss.mean()), rel=1e-4)
    assert not seen.ended.equal(seen.terminated)  # there are cut episodes among them


def test_the_target_of_a_cut_episode_is_its_last_observations_value(rule):
    """Other observations at its end change it; other observations of the next episode do not."""
    agent = make(rule, VECTOR, THREE)
    rollout = made_up_rollout(agent, ends=0.0, cuts=0.0)
    rollout.truncated[2] = True

    def target(changed):
        twin = make(rule, VECTOR, THREE)
        twin.windows.add(changed)
        drawn = twin.windows.batch(torch.arange(4))
        with torch.no_grad():
            online, slow = twin.network(drawn.obs), twin.target(drawn.obs)
            return twin._experience(drawn, online, slow)[1]

    plain = target(rollout)
    final, obs = rollout.final_obs.clone(), rollout.obs.clone()
    final[2] += 1
    obs[3:] += 1
    assert ((target(dataclasses.replace(rollout, final_obs=final)) - plain).abs() > 1e-7).all(1).tolist() == [
        True, True, True, False, False
    ]  # fmt: skip
    assert torch.equal(target(dataclasses.replace(rollout, obs=obs))[:3], plain[:3])


def test_an_update_moves_the_slow_copy_first_and_weights_by_the_learning_rate_at_most(rule):
    agent = make(rule, VECTOR, THREE, learning_rate=0.01, target_rate=0.25)
    for parameter in agent.target.parameters():
        parameter.add_(1.0)
    agent.windows.add(made_up_rollout(agent))
    before, slow = ([p.detach().clone() for p in net.parameters()] for net in (agent.network, agent.target))
    agent.optimizer.learning_rate = 0.01
    agent._update(agent.windows.batch(torch.arange(4)))
    after, moved = ([p.detach() for p in net.parameters()] for net in (agent.network, agent.target))
    for old, new, behind, now in zip(before, after, slow, moved, strict=True):
        assert torch.allclose(now, 0.75 * behind + 0.25 * old)
        assert float((new - old).abs().max()) <= 0.01 * 1.0001
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_optimiser_is_adam_with_a_clipped_update():
    """Two weights: a gradient that rises steeply makes Adam's update larger than 1, which alone is clipped."""
    gradients = [torch.tensor([0.0, 1.0])] * 50 + [torch.tensor([9.0, 1.0])] * 4
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    clipped = ClippedAdam([weight], max_update=1.0)
    clipped.learning_rate = 0.1
    first, second, largest = torch.zeros(2), torch.zeros(2), 0.0
    for count, gradient in enumerate(gradients, 1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        update = first / (1 - 0.9**count) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
        weight.grad, before = gradient.clone(), weight.detach().clone()
        assert float(clipped.step()) == pytest.approx(float(gradient.norm()))
        assert torch.allclose(before - weight.detach(), 0.1 * update.clamp(-1, 1), atol=1e-6)
        largest = max(largest, float(update.abs().max()))
    assert largest > 1.1


def test_updates_are_due_by_the_replay_ratio(rule):
    """Four windows a rollout, each used four times in batches of eight: two updates a rollout once eight are stored."""
    agent = make(rule, VECTOR, THREE, batch_size=8)
    found = [dict(agent.learn(made_up_rollout(agent, seed=k), 0.0, draw(k))) for k in range(3)]
    assert found[0] == {}
    assert [one["updates"] for one in found[1:]] == [2, 2]
    slow = make(rule, VECTOR, THREE, batch_size=4, replay_ratio=0.5)
    assert [bool(slow.learn(made_up_rollout(slow, seed=k), 0.0, draw(k))) for k in range(4)] == [False, True] * 2


def test_a_restored_agent_goes_on_bit_for_bit(rule):
    one, two = make(rule, VECTOR, THREE, seed=1), make(rule, VECTOR, THREE, seed=2)
    rollouts = [made_up_rollout(one, seed=k) for k in range(4)]
    for k in range(2):
        one.learn(rollouts[k], 0.0, draw(k))
    two.load_state_dict(one.state_dict())
    for agent in (one, two):
        for k in range(2, 4):
            agent.learn(rollouts[k], 0.0, draw(k))
    assert equal(one.state_dict(), two.state_dict())
    assert float(one.lifetime.hidden.abs().max()) > 0


def test_acting_needs_the_network_alone(rule):
    """A frozen copy has no windows, slow copy or memory of the lifetime."""
    agent = make(rule, VECTOR, THREE)
    agent.learn(made_up_rollout(agent), 0.0, draw())
    acting, kept = split_optimizers(agent.state_dict())
    assert {name.partition(".")[0] for name in acting} == {"network"}
    assert {name.split(".")[1] for name in kept} == {"adam", "target", "windows", "lifetime", "scale", "owed"}
    alone = Disco(DiscoConfig(**SMALL), VECTOR, THREE, seed=5)  # without a file
    alone.load_state_dict(acting | split_optimizers(alone.state_dict())[1])
    obs = torch.randn(6, 4, generator=draw())
    assert torch.equal(alone.action_probabilities(obs, None), agent.action_probabilities(obs, None))
    assert torch.equal(alone.state_values(obs), agent.state_values(obs))
    with pytest.raises(AgentError, match=r"^rule: missing; wanted the path of disco_103.npz"):
        alone.prepare_to_learn()


def test_values_are_the_policys_mean_of_action_values(rule):
    agent = make(rule, VECTOR, THREE)
    obs = torch.randn(6, 4, generator=draw())
    with torch.no_grad():
        found = agent.network(obs)
    wanted = (agent.action_probabilities(obs, None) * expected(found.q).double()).sum(-1)
    assert torch.allclose(agent.state_values(obs).double(), wanted, atol=1e-5)
    assert torch.equal(agent.network.policy(obs), found.policy)


def test_masks_and_other_actions_are_refused(rule):
    agent = make(rule, VECTOR, THREE)
    with pytest.raises(AgentError, match="legal_mask: got action masks, which the rule has not met; wanted none"):
        agent.act(torch.zeros(1, 4), torch.ones(1, 3, dtype=torch.bool), draw())
    with pytest.raises(AgentError, match=r"^disco: got the action space .*; wanted Discrete"):
        make(rule, VECTOR, spaces.Box(-1, 1, (2,), np.float32))
    with pytest.raises(AgentError, match=r"^disco: got a rollout without notes"):
        agent.learn(dataclasses.replace(made_up_rollout(agent), notes=None), 0.0, draw())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 9, "buffer_size": 8}, "batch_size: got 9 with buffer_size=8; wanted at most that"),
        ({"replay_ratio": 0.0}, "replay_ratio: got 0.0"), ({"trace": 1.5}, "trace: got 1.5"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(AgentError, match=f"^{said}"):
        DiscoConfig(**settings)


def test_training_without_the_file_is_one_line_and_leaves_no_folder(tmp_path, capsys):
    out = tmp_path / "run"
    for words in ([], ["--agent.rule", str(tmp_path / "other.npz")]):
        assert main(["train", "disco", "mlbits/Catch-v0", "--out", str(out), *words]) == 2
        said = capsys.readouterr().err.strip()
        assert said.count("\n") == 0
        assert "disco_103.npz" in said
        assert "google-deepmind/disco_rl" in said
        assert not out.exists()


@pytest.mark.parametrize("words", [["--rule", "mine.npz"], ["--rule=mine.npz"], ["--agent.rule", "mine.npz"]])
def test_the_file_is_named_by_a_short_flag_too(words):
    assert parse_train(["disco", "mlbits/Catch-v0", *words])[0].agent_config.rule == "mine.npz"


def test_other_agents_have_no_such_flag(capsys):
    assert main(["train", "ppo", "mlbits/Catch-v0", "--rule", "mine.npz"]) == 2
    assert "unknown flag --rule" in capsys.readouterr().err


def test_a_run_resumes_as_if_uninterrupted_and_acts_without_the_file(rule, tmp_path, capsys):
    words = f"train disco mlbits/Catch-v0 --preset none --agent.rule {rule} --quiet --no-video --eval-every 0 "
    words += "--num-envs 3 --agent.num-steps 10 --agent.batch-size 6 --agent.replay-ratio 2 --agent.hidden 8"
    folders = [tmp_path / "whole", tmp_path / "parts"]
    assert main([*words.split(), "--total-steps", "120", "--checkpoint-every", "30", "--out", str(folders[0])]) == 0
    assert main([*words.split(), "--total-steps", "60", "--checkpoint-every", "30", "--out", str(folders[1])]) == 0
    assert main(["resume", str(folders[1]), "--total-steps", "120"]) == 0
    rule.unlink()
    one, two = (load_agent(folder)[0].state_dict() for folder in folders)
    assert equal(one, two)
    assert main(["eval", str(folders[0]), "--episodes", "2"]) == 0


FILE = os.environ.get("MLBITS_DISCO_RULE", "")


@pytest.mark.slow
@pytest.mark.skipif(not FILE, reason="MLBITS_DISCO_RULE does not say where disco_103.npz is")
def test_the_published_rule_learns_catch(tmp_path):
    """One of the three seeds of ``mlbits reproduce disco``: 90% of balls caught after 1,000 updates."""
    words = ["train", "disco", "mlbits/Catch-v0", "--agent.rule", FILE, "--eval-every", "0", "--no-video", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert main(["eval", str(tmp_path / "run"), "--episodes", "500", "--json", str(tmp_path / "eval.json")]) == 0
    assert json.loads((tmp_path / "eval.json").read_text())["return_mean"] >= 0.8
