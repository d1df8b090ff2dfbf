"""Imitation of saved games: observations, actions and outcomes as when the game is played here."""

import numpy as np
import pytest
import torch

from mlbits import make_batch, make_game
from mlbits.agents.agent import AgentError
from mlbits.agents.best_response.imitation import imitate, read_examples
from mlbits.agents.best_response.learner import NetworkSettings, SearchLearnerConfig
from mlbits.agents.networks.actor_critic import ActorCriticCore
from mlbits.envs.diplomacy.files.saved_games import GameRecord, save_games
from mlbits.envs.diplomacy.order_parser import order_text
from mlbits.envs.diplomacy.records import read_position
from mlbits.envs.diplomacy.report import adjudicate
from mlbits.envs.diplomacy.vocabulary import vocabulary

MINI = "mlbits/DiplomacyMini-v0"
pytestmark = pytest.mark.slow  # the board takes half a minute to compile


def texts(words, position, seat, slots, action, board):
    """A seat's action as orders."""
    given = []
    for lists, choice in zip(slots, action, strict=True):
        if lists:
            order = words.order(lists - 1, choice)
            if lists - 1 == words.disbanding:
                unit = position.units[order.location]
                order = words.order(lists - 1, choice, unit.kind, unit.location)
            given.append(order_text(order, board, position))
    return given


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A game of random orders, played by the batch and recorded by the adjudicator; and its file."""
    batch = make_batch(MINI, 1, seed=4, autoreset="disabled")
    board, words, results, seen = batch.game.layout["board"], vocabulary(batch.game.layout["board"]), [], []
    while not bool(batch.terminated.any()):
        position = read_position(batch.records()[0], board)
        if results:
            position = results[-1].after
        actions = batch.sample_actions()
        orders = {
            power: texts(words, position, seat, batch.obs["slots"][0, seat].tolist(), actions[0, seat].tolist(), board)
            for seat, power in enumerate(board.powers)
            if bool(batch.active[0, seat])
        }
        for seat in range(3):
            if bool(batch.active[0, seat]):
                obs = {name: value[0, seat].clone() for name, value in batch.obs.items()}
                seen.append((obs, batch.legal_mask[0, seat].clone(), actions[0, seat].clone(), seat))
        results.append(adjudicate(position, orders))
        batch.step(actions)
    path = tmp_path_factory.mktemp("games") / "games.jsonl"
    save_games(path, [GameRecord.of(results, over=True)])
    return path, seen, batch.reward[0].tolist()


def test_examples_equal_what_was_observed_and_played(played):
    path, seen, rewards = played
    found = read_examples(str(path), make_game(MINI))
    assert len(found.outcome) == len(seen) > 30
    for k, (obs, mask, action, seat) in enumerate(seen):
        for name, value in obs.items():
            assert torch.equal(found.obs[name][k], value), (k, name, (found.obs[name][k] != value).nonzero())
        assert torch.equal(found.mask[k], mask)
        slots = obs["slots"] > 0
        if int(obs["status"][4]) == 0:  # builds may come in another order
            assert torch.equal(found.action[k][slots], action[slots])
        assert float(found.outcome[k]) == pytest.approx(rewards[seat])


def test_a_network_learns_the_games(played):
    game = make_game(MINI)
    settings = NetworkSettings((16,), 0.01, 1.0)
    core = ActorCriticCore(settings, game.observation_space, game.action_space, seed=0, device="cpu", network="auto")
    config = SearchLearnerConfig(games=str(played[0]), imitation_steps=60, batch_size=32)
    data = read_examples(config.games, game)

    def loss():
        with torch.no_grad():
            return -float(core.distribution.log_prob(core.network.policy(data.obs), data.mask, data.action).mean())

    before = loss()
    assert np.isfinite(list(imitate(core, game, config, torch.Generator().manual_seed(0)).values())).all()
    assert loss() < 0.6 * before
    with torch.no_grad():
        assert float((core.network.value(data.obs) - data.outcome).square().mean()) < 0.05


def test_a_file_for_another_game_is_refused(played):
    with pytest.raises(AgentError, match="games: got a file for Blotto"):
        read_examples(str(played[0]), make_game("mlbits/Blotto-v0"))
