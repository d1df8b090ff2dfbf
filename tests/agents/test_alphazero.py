"""AlphaZero: its loss by hand, symmetries, moves of self-play and of play, and what it learns."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents import agent_entry
from mlbits.agents.agent import AgentError
from mlbits.agents.memory.outcomes import Outcomes
from mlbits.selfplay.lineup import decide

FOUR, THREE = "mlbits/ConnectFour-v0", "mlbits/TicTacToe-v0"
SMALL = {"width": 16, "blocks": 1, "simulations": 8}


def make(env=THREE, seed=0, **settings):
    entry = agent_entry("alphazero")
    game = mlbits.make_game(env)
    config = entry.config_class()(**(SMALL | settings))
    return entry.make(config, game.observation_space, game.action_space, seed=seed, device="cpu", game=game)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def decision(agent, batch, seed=0, greedy=False):
    obs, mask = batch.obs.flatten(0, 1), batch.legal_mask.flatten(0, 1)
    return decide(agent, batch, None, obs, mask, draw(seed), greedy=greedy)


def positions(count=6):
    """Made-up positions of tic-tac-toe with targets."""
    batch = mlbits.make_batch(THREE, count, seed=1)
    batch.step(batch.sample_actions())
    mask = batch.legal_mask[:, 1]
    policy = torch.rand(count, 9, generator=draw()) * mask
    policy /= policy.sum(1, keepdim=True)
    notes = {"policy": policy, "value": torch.linspace(-0.5, 0.5, count)}
    outcome = torch.tensor([1.0, -1, 0, 1, 0, -1])[:count]
    return Outcomes(batch.obs[:, 1].clone(), mask.clone(), notes, outcome)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_an_update_follows_the_gradient_of_the_loss(kind):
    settings = {"value_coef": 0.5, "weight_decay": 0.01, "symmetries": False, "max_grad_norm": 1e9}
    settings["precision"] = "float32"
    agent, twin = (make(network=kind, **settings) for _ in range(2))
    drawn = positions()
    metrics = agent._update(drawn, draw())
    logits, value = twin.network(drawn.obs)
    loss = torch.zeros(())
    for k in range(len(drawn.outcome)):
        legal = drawn.mask[k].nonzero().ravel()
        log_p = torch.log_softmax(logits[k][legal], 0)
        loss = loss + 0.5 * (drawn.outcome[k] - value[k]) ** 2 - (drawn.notes["policy"][k][legal] * log_p).sum()
    loss = loss / len(drawn.outcome) + 0.01 * sum(part.square().sum() for part in twin.network.parameters())
    wanted = torch.autograd.grad(loss, list(twin.network.parameters()))
    got = [part.grad for part in agent.network.parameters()]
    for mine, exact in zip(got, wanted, strict=True):
        assert torch.allclose(mine, exact, atol=1e-5)
    norm = torch.cat([part.flatten() for part in wanted]).norm()
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
    assert agent.updates == 1


def test_a_gradient_in_bfloat16_is_nearly_the_one_in_float32():
    gradients = []
    for precision in ("float32", "bfloat16"):
        agent = make(network="conv", precision=precision, symmetries=False, max_grad_norm=1e9)
        for _ in range(3):
            agent._update(positions(), draw())
        gradients.append(torch.cat([part.grad.flatten() for part in agent.network.parameters()]))
    assert not torch.equal(*gradients)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_that_plays_is_a_running_average_and_is_saved(precision):
    agent = make(average=0.6, precision=precision, learning_rate=0.1)
    seen = positions()
    mean = agent.optimizer.flat.clone()
    for k in range(4):
        agent._update(seen, draw(k))
        mean += max(0.4, 1 / (k + 2)) * (agent.optimizer.flat - mean)
    playing = torch.cat([part.flatten() for part in agent._playing.parameters()])
    assert torch.allclose(playing, mean, atol=1e-6)
    logits, value = agent.policy_and_value(seen.obs, seen.mask)
    exact, estimate = agent._playing(seen.obs)
    assert torch.allclose(logits, exact, rtol=0.05, atol=0.05)
    assert torch.allclose(value, estimate, rtol=0.05, atol=0.05)
    assert not torch.allclose(logits, agent.network(seen.obs)[0], rtol=0.05, atol=0.05)
    other = make(average=0.6, precision=precision, seed=5)
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.policy_and_value(seen.obs, seen.mask)[0], logits)


def test_positions_are_turned_with_their_masks_and_policies():
    agent = make(FOUR)
    games = [mlbits.make_batch(FOUR, 1) for _ in range(2)]
    for column in (0, 1, 0, 1, 0, 1, 1, 2):
        for batch, move in zip(games, (column, 6 - column), strict=True):
            batch.step(torch.tensor([[move, move]]))
    (one, other) = games
    policy = torch.arange(7.0)[None] / 21
    both = torch.stack([one.obs[0, 0]] * 64), torch.stack([one.legal_mask[0, 0]] * 64), policy.expand(64, -1)
    obs, mask, turned = agent._turned(*both, draw())
    mirrored = (obs == other.obs[0, 0]).flatten(1).all(1)
    assert 10 < int(mirrored.sum()) < 54
    assert torch.equal(turned[mirrored], policy.flip(1).expand(int(mirrored.sum()), -1))
    assert torch.equal(mask[mirrored], other.legal_mask[0, 0].expand(int(mirrored.sum()), -1))
    assert (obs[~mirrored] == one.obs[0, 0]).all()
    assert torch.equal(turned[~mirrored], policy.expand(64 - int(mirrored.sum()), -1))


def test_moves_are_legal_and_passes_are_0():
    agent, batch = make(FOUR), mlbits.make_batch(FOUR, 32, seed=3)
    for ply in range(60):
        found = decision(agent, batch, seed=ply)
        acting = batch.active.flatten()
        assert (found.action[~acting] == 0).all()
        assert batch.legal_mask.flatten(0, 1)[torch.arange(64), found.action].all()
        policy = found.notes["policy"]
        assert torch.allclose(policy.float().sum(1), acting.float(), atol=5e-3)
        assert not (policy[acting] * ~batch.legal_mask.flatten(0, 1)[acting]).any()
        batch.step(found.action.view(32, 2))


def test_greedy_play_has_no_noise():
    agent, batch = make(FOUR), mlbits.make_batch(FOUR, 16)
    moves = [decision(agent, batch, seed, greedy=True) for seed in range(3)]
    assert all(torch.equal(moves[0].action, other.action) for other in moves)
    assert moves[0].notes is None
    drawn = [decision(agent, batch, seed).action for seed in range(3)]
    assert not torch.equal(drawn[0], drawn[1])


def test_first_moves_are_random_and_left_out_and_later_ones_the_best():
    settings = {"random_opening": 2, "sampled_moves": 3}
    agent, batch = make(FOUR, **settings), mlbits.make_batch(FOUR, 3000, seed=0)
    off = []
    for ply in range(5):
        found = decision(agent, batch, seed=ply)
        acting = batch.active.flatten()
        off.append(found.notes["off_policy"][acting].numpy())
        if ply >= 3:
            # Gumbel's best move is not drawn from the policy: among few visited ones it has the highest target.
            best = found.notes["policy"][acting].argmax(1)
            assert (found.action[acting] == best).float().mean() > 0.5
        batch.step(found.action.view(3000, 2))
    assert not np.any(off[2:])
    last = np.where(off[1], 2, np.where(off[0], 1, 0))  # moves up to the last random one
    assert np.bincount(last) / 3000 == pytest.approx([1 / 3] * 3, abs=0.04)  # 4.6 standard deviations


def test_a_batch_on_the_way_goes_on_with_the_weights_of_now():
    agent = make(average=0, precision="bfloat16")
    obs, mask = positions().obs, positions().mask
    before = agent.policy_and_value(obs, mask)
    for _ in range(20):
        agent._update(positions(), draw())
    after, exact = agent.policy_and_value(obs, mask), agent.network(obs)
    assert not torch.equal(before[0], after[0])
    assert not torch.equal(after[1], exact[1])  # rounded
    assert torch.allclose(after[1], exact[1], atol=0.02)
    other = make(average=0, precision="bfloat16", seed=5)
    other.policy_and_value(obs, mask)
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.policy_and_value(obs, mask)[0], after[0])


@pytest.mark.parametrize(
    "env",
    [
        pytest.param("mlbits/GridWorld-v0", marks=pytest.mark.slow),
        pytest.param("mlbits/CartPole-v0", marks=pytest.mark.slow),
        pytest.param("mlbits/Knapsack-v0", marks=pytest.mark.slow),
    ],
)
def test_other_observations_of_one_seat_are_taken(env):
    agent, batch = make(env), mlbits.make_batch(env, 3, seed=0)
    for seed in range(3):
        mask = None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1)
        found = decide(agent, batch, None, batch.obs.flatten(0, 1) if not isinstance(batch.obs, dict) else
                       {key: part.flatten(0, 1) for key, part in batch.obs.items()}, mask, draw(seed))  # fmt: skip
        batch.step(found.action.view(3, 1))
        assert found.notes["policy"].float().sum(1).tolist() == pytest.approx([1] * 3, abs=5e-3)


def test_other_games_are_refused():
    for env, words in {
        "mlbits/Blotto-v0": "wanted one seat, or two that move in turn",
        "mlbits/Pendulum-v0": "one that is discrete",
        "mlbits/DiplomacyMini-v0": "one that is discrete",
    }.items():
        with pytest.raises(AgentError, match=words):
            make(env)
    with pytest.raises(AgentError, match="alphazero: plans by a game's rules; wanted one of mlbits' own games"):
        game = mlbits.make_game(THREE)
        entry = agent_entry("alphazero")
        entry.make(entry.config_class()(), game.observation_space, game.action_space, seed=0, device="cpu")


@pytest.mark.slow
def test_it_learns_which_moves_win_at_once(tmp_path):
    """After some games of self-play, the bare network takes wins in tic-tac-toe that random weights do not."""
    folder, _ = mlbits.train(
        "alphazero", THREE, out=tmp_path / "run", preset="none", console=False, measure=None, total_steps=40_000,
        num_envs=128, eval_every=0, agent_settings={"width": 32, "blocks": 1, "simulations": 16, "num_steps": 4,
                                                    "learning_starts": 1000, "batch_size": 128,
                                                    "replay_ratio": 8.0, "learning_rate": 3e-3},
    )  # fmt: skip
    from mlbits.selfplay.runs.saved_agents import load_agent

    trained, fresh = load_agent(folder)[0], make()
    batch = mlbits.make_batch(THREE, 1)
    for move in (0, 3, 1, 4):  # X: a1 b1, O: a2 b2; X wins by c1
        batch.step(torch.tensor([[move, move]]))
    obs, mask = batch.obs[:, 0], batch.legal_mask[:, 0]
    assert trained.action_probabilities(obs, mask)[0, 2] > 0.4 > fresh.action_probabilities(obs, mask)[0, 2]
    assert trained.state_values(obs)[0] > 0.3 > fresh.state_values(obs)[0]
