"""The bot that searches by random games: strength, settings in its name, and refusals."""

import copy

import pytest
import torch

import mlbits
from mlbits.agents import agent_entry, bare_name, make_bot, read_bot
from mlbits.agents.agent import AgentError, content_hash
from mlbits.envs.core.errors import UnknownIdError
from mlbits.evals.head_to_head import play_against
from mlbits.evals.headline import measure
from mlbits.selfplay.lineup import decide

C4, GRID = "mlbits/ConnectFour-v0", "mlbits/GridWorld-v0"


def bot(name, env=C4, **settings):
    game = mlbits.make_game(env, **settings)
    return make_bot(name, game.observation_space, game.action_space, device="cpu", game=game)


def test_it_beats_random_play_and_more_simulations_beat_fewer():
    strong = bot("mcts@simulations=200")
    assert play_against(strong, bot("random"), C4, 40, seed=0)["won"] >= 0.95
    assert play_against(strong, bot("mcts@simulations=10"), C4, 40, seed=0)["won"] >= 0.85


def test_it_never_loses_tic_tac_toe():
    env = "mlbits/TicTacToe-v0"
    found = play_against(bot("mcts", env), bot("random", env), env, 100, seed=1)
    assert found["lost"] == 0 and found["won"] > 0.8


def test_its_defaults_are_the_yardsticks():
    entry, config = read_bot("mcts")
    assert entry is agent_entry("mcts")
    assert (config.simulations, config.c, config.rollouts, config.solver) == (1000, 2.0, 1, True)
    search = bot("mcts").search.config
    assert (search.method, search.simulations, search.c_uct) == ("uct", 1000, 2.0)
    assert (search.rollouts, search.solver) == (1, True)


@pytest.mark.slow
def test_it_plays_alone():
    """Two steps to the goal."""
    game = {"map": "S.G", "horizon": 6}
    planner, batch = bot("mcts@simulations=300", GRID, **game), mlbits.make_batch(GRID, 2, **game)
    ended = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        action = decide(planner, batch, None, batch.obs.flatten(0, 1), None, generator).action
        ended.append(batch.step(action[:, None]).terminated.tolist())
    assert ended == [[False, False], [True, True]]


def test_a_setting_that_does_not_fit_the_game_is_refused_with_the_bots_name(monkeypatch):
    def refuse(game, config):
        raise AgentError(f"{refuse.what}: got {config.simulations}; wanted less")

    monkeypatch.setattr("mlbits.agents.bots.mcts.TreeSearch", refuse)
    for what, prefix in (("simulations", "mcts@simulations=7: "), ("search", "")):
        refuse.what = what
        with pytest.raises(AgentError, match=f"^{prefix}{what}: got 7; wanted less$"):
            bot("mcts@simulations=7")


def test_settings_are_read_from_the_name():
    _, config = read_bot("mcts@simulations=50,c=1.5,rollouts=2,solver=false")
    assert (config.simulations, config.c, config.rollouts, config.solver) == (50, 1.5, 2, False)
    assert bare_name("mcts@simulations=50") == bare_name("mcts") == "mcts"
    one, two = bot("mcts@simulations=50"), bot("mcts@simulations=51")
    assert content_hash(one) != content_hash(two) and content_hash(one) == content_hash(copy.deepcopy(one))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mcts@c", "mcts@c: got 'c' after the @; wanted NAME=VALUE,NAME=VALUE with simulations, c, rollouts, solver"),
        ("mcts@", "mcts@: got '' after the @; wanted NAME=VALUE"),
        ("mcts@depth=3", "got 'depth=3' after the @; wanted .* with simulations, c, rollouts, solver, each once"),
        ("mcts@c=1,c=2", "got 'c=2' after the @; .* each once"),
        ("mcts@simulations=many", "simulations: got 'many'; wanted a whole number"),
        ("mcts@simulations=0", "mcts@simulations=0: simulations: got 0; wanted a number of at least 1"),
        ("mcts@c=x", "c: got 'x'; wanted a number"),
        ("mcts@c=nan", "c: got nan; wanted a number of at least 0"),
        ("mcts@solver=maybe", "solver: got 'maybe'; wanted true or false"),
        ("random@c=1", "got 'c=1' after the @; wanted no settings"),
        ("ppo@hidden=3", "got ppo, which has not been trained; wanted a bot"),
    ],
)
def test_wrong_settings_are_refused(name, message):
    with pytest.raises(AgentError, match=message):
        read_bot(name)


def test_unknown_bots_and_games_that_cannot_be_searched_are_refused():
    with pytest.raises(UnknownIdError, match="mcts"):
        read_bot("mctz@simulations=3")
    with pytest.raises(AgentError, match="Blotto with 2 seats that act at once"):
        bot("mcts", "mlbits/Blotto-v0")
    game = mlbits.make_game(C4)
    with pytest.raises(AgentError, match="mcts: plans by a game's rules; wanted one of mlbits' own games"):
        make_bot("mcts", game.observation_space, game.action_space, device="cpu")
    with pytest.raises(AgentError, match="wanted plan"):
        bot("mcts").act(None, None, torch.Generator())
    with pytest.raises(AgentError, match="does not learn"):
        bot("mcts").learn(None, 0, torch.Generator())


def test_only_agents_that_plan_are_measured_against_it():
    """A search for every move would slow down the evaluation of each run."""
    against = {
        name: [row["opponent"] for row in measure(bot(name), C4, None, 2, seed=0)["against"]]
        for name in ("random", "mcts@simulations=2")
    }
    assert against == {"random": ["random"], "mcts@simulations=2": ["random", "mcts@simulations=100"]}
