"""The classifier: behaviour policies, inputs of each loss, learning, saving, and errors."""

import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.agents import agent_entry
from mlbits.agents.agent import AgentError, Rollout
from mlbits.agents.classifier import Classifier, ClassifierConfig
from mlbits.envs.digits import digits
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.evaluate import evaluate_run, load_agent
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train

ID = "mlbits/Digits-v0"


def make(game=None, seed=0, **settings):
    game = game or digits(feedback="full")
    return Classifier(ClassifierConfig(**settings), game.observation_space, game.action_space, seed=seed)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rollout_of(agent, batch, seed=0):
    lineup = self_play(agent, batch.num_envs, batch.num_seats, batch.device)
    return Collector(batch, agent.experience, generator(seed)).collect(lineup)[0]


@pytest.mark.parametrize(
    ("loss", "epsilon"), [("epsilon_greedy", 0.4), ("q", 0.4), ("epsilon_greedy", 1.0), ("q", 0.0)]
)
def test_epsilon_greedy_behaviour(loss, epsilon):
    scores = torch.tensor([[0.0, 2, 1, -1], [5, 0, 0, 0]])
    mask = torch.tensor([[True, False, True, True], [True, True, True, True]])
    probability = make(loss=loss, epsilon=epsilon).behaviour(scores, mask).exp()
    low, high = epsilon / 3, 1 - epsilon + epsilon / 3
    assert torch.allclose(probability[0], torch.tensor([low, 0, high, low]), atol=1e-6)
    low, high = epsilon / 4, 1 - epsilon + epsilon / 4
    assert torch.allclose(probability[1], torch.tensor([high, low, low, low]), atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "policy_gradient"])
def test_other_losses_answer_by_the_softmax_of_the_scores(loss):
    scores = torch.tensor([[0.0, 2, 1, -1]])
    assert torch.allclose(make(loss=loss).behaviour(scores, None), torch.log_softmax(scores, -1))


@pytest.mark.parametrize("loss", ["policy_gradient", "epsilon_greedy", "q"])
def test_answers_are_drawn_from_the_behaviour_policy_with_its_log_probability(loss):
    agent, obs = make(digits(classes=3), loss=loss, epsilon=0.5), torch.rand(1, 64).expand(30_000, 64)
    with torch.no_grad():
        agent.network.mlp.head_bias.copy_(torch.tensor([0.5, 0.0, -0.5]))
        log_b = agent.behaviour(agent.network(obs[:1]), None)[0]
    decision = agent.act(obs, None, generator(1))
    share = torch.bincount(decision.action, minlength=3) / len(obs)
    assert torch.allclose(share, log_b.exp(), atol=0.015)
    assert torch.allclose(decision.log_prob, log_b[decision.action], atol=1e-5)


@pytest.mark.parametrize("loss", ["policy_gradient", "epsilon_greedy", "q", "cross_entropy"])
def test_greedy_takes_the_greatest_score_that_is_legal(loss):
    game = digits(feedback="full")
    agent, obs = make(game, loss=loss, epsilon=1.0), {"features": torch.rand(50, 64), "feedback": torch.zeros(50, 10)}
    scores = agent.network(obs)
    assert torch.equal(agent.act(obs, None, generator(), greedy=True).action, scores.argmax(-1))
    mask = torch.ones(50, 10, dtype=torch.bool).scatter_(1, scores.argmax(-1, keepdim=True), False)
    assert torch.equal(
        agent.act(obs, mask, generator(), greedy=True).action, scores.masked_fill(~mask, -1e9).argmax(-1)
    )
    assert mask.gather(1, agent.act(obs, mask, generator()).action[:, None]).all()


def test_the_four_losses_have_the_same_initial_network():
    weights = [
        make(loss=loss).network.state_dict() for loss in ("cross_entropy", "policy_gradient", "epsilon_greedy", "q")
    ]
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
    plain = make(digits()).network.state_dict()  # and the feedback's place in the observation adds nothing to it
    assert all(torch.equal(value, plain[name]) for name, value in weights[0].items())


def test_no_score_depends_on_the_feedback():
    agent = make()
    features = torch.rand(20, 64)
    blind, told = (agent.network({"features": features, "feedback": torch.full((20, 10), fill)}) for fill in (0.0, 1.0))
    assert torch.equal(blind, told)


@pytest.mark.parametrize("loss", ["policy_gradient", "epsilon_greedy", "q"])
def test_other_losses_learn_from_rewards_alone(loss):
    """They learn the same with and without the feedback."""
    after = []
    for feedback in ("bandit", "full"):
        game = digits(classes=3, feedback=feedback)
        agent, batch = make(game, loss=loss), GameBatch(game, 32, seed=1)
        for step in range(3):
            agent.learn(rollout_of(agent, batch, step), 0.0, generator())
        after.append(agent.network.state_dict())
    assert all(torch.equal(value, after[1][name]) for name, value in after[0].items())


def test_cross_entropy_learns_from_the_label_whatever_was_answered():
    game = digits(classes=3, feedback="full")
    after = []
    for answer in (0, 2):
        agent, batch = make(game, loss="cross_entropy"), GameBatch(game, 32, seed=1)
        rollout = rollout_of(agent, batch)
        rollout.sample.fill_(answer)
        rollout.reward.fill_(answer)
        agent.learn(rollout, 0.0, generator())
        after.append(agent.network.state_dict())
    assert all(torch.equal(value, after[1][name]) for name, value in after[0].items())


@pytest.mark.parametrize("loss", ["policy_gradient", "cross_entropy"])
def test_rows_of_others_are_not_learned_from(loss):
    game = digits(classes=3, feedback="full")
    after = []
    for spoil in (False, True):
        agent, batch = make(game, loss=loss, num_steps=2), GameBatch(game, 16, seed=1)
        rollout = rollout_of(agent, batch)
        active = torch.arange(16).remainder(2).bool().view(1, 16, 1).expand(2, 16, 1)
        if spoil:
            rollout.reward[~active] = 9
            rollout.sample[~active] = 0
            rollout.final_obs["feedback"][~active] = 5
        agent.learn(
            Rollout(**{**{k: getattr(rollout, k) for k in rollout.__slots__}, "active": active}), 0.0, generator()
        )
        after.append(agent.network.state_dict())
    assert all(torch.equal(value, after[1][name]) for name, value in after[0].items())


LEARNERS = {
    "cross_entropy": ({"loss": "cross_entropy", "learning_rate": 1e-2}, 150),
    "policy_gradient": ({"loss": "policy_gradient", "learning_rate": 3e-3}, 500),
    "with a baseline": ({"loss": "policy_gradient", "baseline": "mean", "learning_rate": 3e-3}, 500),
    "uniform answers": ({"loss": "epsilon_greedy", "epsilon": 1.0, "learning_rate": 1e-2}, 300),
    "epsilon_greedy": ({"loss": "epsilon_greedy", "learning_rate": 1e-2}, 500),
    "importance weights": (
        {"loss": "epsilon_greedy", "epsilon": 0.5, "importance_weights": True, "learning_rate": 3e-3},
        800,
    ),
    "q": ({"loss": "q", "learning_rate": 3e-3}, 400),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_loss_learns_to_read_three_digits(name):
    settings, iterations = LEARNERS[name]
    game = digits(classes=3, feedback="full")
    agent, batch = make(game, **settings), GameBatch(game, 16, seed=3)
    lineup = self_play(agent, 16, 1, batch.device)
    collector = Collector(batch, agent.experience, generator(3))
    for _ in range(iterations):
        agent.learn(collector.collect(lineup)[0], 0.0, generator())
    test = GameBatch(digits("test", classes=3, feedback="full"), 500, seed=4)
    answer = agent.act({key: value[:, 0] for key, value in test.obs.items()}, None, generator(), greedy=True).action
    assert float(test.step(answer).reward.mean()) > 0.95


def test_a_restored_agent_acts_and_learns_the_same():
    game = digits(classes=3)
    agent, batch = make(game, seed=1), GameBatch(game, 16, seed=1)
    agent.learn(rollout_of(agent, batch), 0.0, generator())
    twin = make(game, seed=2)
    twin.load_state_dict(agent.state_dict())
    rollout = rollout_of(agent, batch)
    for one in (agent, twin):
        one.learn(rollout, 0.0, generator())
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in agent.state_dict().items())
    with pytest.raises(AgentError, match="weights do not fit this agent's network"):
        make(game, hidden=(8,)).load_state_dict(agent.state_dict())


def test_a_run_on_one_split_is_evaluated_on_the_other(tmp_path):
    run = {"total_steps": 800, "num_envs": 16, "eval_episodes": 200, "video": False, "device": "cpu"}
    settings = resolve(
        "classifier", ID, preset="none", run=run, env_settings={"feedback": "full"},
        agent_settings={"loss": "cross_entropy", "learning_rate": 1e-2},
    )  # fmt: skip
    folder, summary = train(settings, tmp_path / "run", console=False)
    assert 0.8 < summary["return_mean"] < 1  # half learned, so that the splits differ
    result = evaluate_run(folder, 300, env_settings={"split": "test"})
    played = play_episodes(
        load_agent(folder)[0], ID, 300, seed=1, settings={"feedback": "full", "split": "test"}, greedy=True
    )
    assert result["return_mean"] == pytest.approx(played.returns.mean())
    assert result["return_mean"] != evaluate_run(folder, 300)["return_mean"]
    assert (result["optimum"], result["random_return"]) == pytest.approx((1.0, 0.1))


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ppo", "reinforce"])
def test_other_agents_train_on_digits_too(agent, tmp_path):
    run = {"total_steps": 20_000, "num_envs": 64, "eval_episodes": 200, "video": False, "device": "cpu"}
    learning = {"num_steps": 4, "learning_rate": 3e-3} if agent == "ppo" else {"num_steps": 1, "learning_rate": 3e-3}
    settings = resolve(agent, ID, preset="none", run=run, env_settings={"classes": 3}, agent_settings=learning)
    assert train(settings, tmp_path / "run", console=False)[1]["return_mean"] > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss": "hinge"},
            "loss: got 'hinge'; wanted 'cross_entropy', 'policy_gradient', 'epsilon_greedy' or 'q'",
        ),
        ({"baseline": "value"}, "baseline: got 'value'; wanted 'none' or 'mean'"),
        ({"loss": "q", "baseline": "mean"}, "baseline: got 'mean' with loss='q'; wanted 'policy_gradient'"),
        ({"importance_weights": True}, "importance_weights: got True with loss='policy_gradient'"),
        ({"epsilon": 1.5}, "epsilon: got 1.5; wanted a number from 0 to 1"),
        ({"num_steps": 0}, "num_steps: got 0"),
        ({"learning_rate": -1.0}, "learning_rate: got -1.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm: got 0.0"),
        ({"hidden": ()}, r"hidden: got \(\)"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(AgentError, match=message):
        ClassifierConfig(**settings)


def test_mismatches_are_refused():
    game = digits()
    with pytest.raises(
        AgentError, match=r"'cross_entropy' learns from labels.*'feedback' \[10\] \(--env.feedback full\)"
    ):
        make(game, loss="cross_entropy")
    with pytest.raises(AgentError, match=r"got the action space Box.*; wanted one that is discrete"):
        box = spaces.Box(-1, 1, (2,))
        agent_entry("classifier").make(ClassifierConfig(), game.observation_space, box, seed=0, device="cpu")
    with pytest.raises(AgentError, match=r"got the action space MultiDiscrete\(\[2 3\]\); wanted Discrete"):
        Classifier(ClassifierConfig(), game.observation_space, spaces.MultiDiscrete([2, 3]))


def test_cross_entropy_refuses_rewards_below_zero_and_longer_episodes():
    game = digits(classes=2, rewards=[[1, -1], [-1, 1]], feedback="full")
    agent = make(game, loss="cross_entropy")
    rollout = rollout_of(agent, GameBatch(game, 8))
    with pytest.raises(AgentError, match="got the reward -1; wanted 0 or more"):
        agent.learn(rollout, 0.0, generator())
    rollout.terminated[0, 3] = False
    with pytest.raises(AgentError, match="got an episode that continues after the answer"):
        agent.learn(rollout, 0.0, generator())


def test_it_acts_with_masks_and_in_long_episodes():
    batch = mlbits.make_batch("mlbits/Knapsack-v0", 8, seed=0)
    agent = Classifier(ClassifierConfig(num_steps=5), batch.observation_space, batch.action_space)
    metrics = agent.learn(rollout_of(agent, batch), 0.5, generator())
    assert set(metrics) == {"loss", "entropy", "grad_norm", "learning_rate"}
    assert all(torch.tensor(value).isfinite() for value in metrics.values())
