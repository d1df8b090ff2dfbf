"""Search at play time: ``--search.NAME`` of eval, tournament and exploit, and the same from Python."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.bots.mcts import MCTSBot
from mlbits.agents.search.player import NetworkPlayer, SearchPlayer
from mlbits.cli import main
from mlbits.envs.core.rules import rule
from mlbits.envs.registry import register, registered
from mlbits.evals.evaluate import evaluate_against, evaluate_run
from mlbits.evals.exploitability.agent_exploitability import exact_exploitability
from mlbits.evals.exploitability.best_responder import GreedyAgent
from mlbits.evals.exploitability.exploit import describe, exploit
from mlbits.evals.headline import measure, measured_lines
from mlbits.evals.tournament.entrants import open_entries
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.saved_agents import load_agent, open_guest
from mlbits.selfplay.runs.search_flags import SearchFlags
from tests.agents.search.tables import worked_tree

TREE, BITS, C4 = "test/WorkedTree-v0", "test/WorkedTreeBits-v0", "mlbits/ConnectFour-v0"


@rule
def observe_bits(state: Any, params: Any, seat: Any, out: Any) -> None:
    for node in range(40):
        out[node] = node == state.node


def tree_game():
    return worked_tree().game()


def bits_game():
    """The same with a vector as observation."""
    return dataclasses.replace(tree_game(), observation_space=spaces.Box(0, 1, (40,), np.float32), observe=observe_bits)


if TREE not in registered():
    register(TREE, f"{__name__}:tree_game")
    register(BITS, f"{__name__}:bits_game")
TINY = "--preset none --total-steps 64 --num-envs 4 --no-video --quiet --eval-episodes 2".split()
SMALL = {"ppo": "--agent.num-steps 8 --agent.hidden 8", "alphazero": "--agent.width 8 --agent.blocks 1"}
SMALL |= {"q-learning": "--agent.num-steps 8", "reinforce": "--agent.num-steps 8 --agent.hidden 8"}
OF = {"alphazero": BITS, "reinforce": BITS, "ppo": TREE, "q-learning": TREE}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Tiny runs on the worked tree, by agent, and one of Connect Four."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for agent in SMALL:
        made[agent] = str(folder / agent)
        words = ["train", agent, f"{__name__}:{OF[agent]}", *TINY, *SMALL[agent].split(), "--out", made[agent]]
        assert main(words) == 0
    made["c4"] = str(folder / "c4")
    assert main(["train", "ppo", C4, *TINY, *SMALL["ppo"].split(), "--out", made["c4"]]) == 0
    return made


def test_flags_are_the_changes_that_were_given():
    assert SearchFlags().changes() == {}
    assert SearchFlags(simulations=0, rescale=False).changes() == {"simulations": 0, "rescale": False}
    with pytest.raises(ConfigError, match="simulations: got -1; wanted a number from 0 to"):
        SearchFlags(simulations=-1)


@pytest.mark.slow
def test_players_are_opened_with_a_search(runs):
    for agent in ("ppo", "alphazero"):
        player = open_guest(runs[agent], OF[agent], search={"simulations": 9})
        assert isinstance(player, SearchPlayer) and player.config.simulations == 9
        assert type(open_guest(runs[agent], OF[agent], search={"simulations": 0})) is NetworkPlayer
    assert open_guest(runs["alphazero"], BITS).config.simulations == 32  # as trained, without its noise
    assert not hasattr(open_guest(runs["ppo"], TREE), "plan")
    assert isinstance(open_guest("mcts@simulations=3", TREE, search={"simulations": 9}), MCTSBot)
    with pytest.raises(AgentError, match="TabularQ has no policy_and_value"):
        open_guest(runs["q-learning"], TREE, search={"simulations": 9})


@pytest.mark.slow
def test_whoever_searches_enough_cannot_be_exploited(runs):
    """The tree has 27 leaves: 100 simulations prove every position, and the play is perfect."""
    for players in ([runs["ppo"]], [runs["alphazero"]], [runs["reinforce"], runs["alphazero"]]):
        alone = exploit(players, search={"simulations": 0})
        assert alone["exploitability"] > 0.1 and alone["planning"] == 0
        found = exploit(players, search={"simulations": 100, "method": "puct"})
        assert (found["kind"], found["planning"]) == ("exact", len(players))
        assert found["exploitability"] == pytest.approx(0, abs=1e-9)
        assert "look ahead were measured with their search" in describe(found)
        assert "look ahead" not in describe(alone)
    assert exploit(["mcts@simulations=200"], TREE)["exploitability"] == pytest.approx(0, abs=1e-9)
    assert exploit([runs["ppo"], "random"], search={"simulations": 100})["planning"] == 1


@pytest.mark.slow
def test_a_mixed_policy_is_measured_as_it_is(runs):
    """Few simulations prove nothing: greedy play takes the best move, other play draws."""
    search = {"simulations": 2, "solver": False}
    drawn, best = (exploit([runs["ppo"]], search=search, greedy=greedy)["exploitability"] for greedy in (False, True))
    assert abs(drawn - best) > 1e-3


def test_a_trained_response_meets_the_search(runs):
    player = GreedyAgent(open_guest(runs["ppo"], TREE, search={"simulations": 60}))
    assert hasattr(player, "plan") and not hasattr(GreedyAgent(open_guest("random", TREE)), "plan")
    found = exploit([runs["ppo"]], method="trained", steps=2000, episodes=200, search={"simulations": 60}, greedy=True)
    assert found["exploitability"] < 0.05  # the play is perfect
    assert exploit([runs["ppo"]], method="trained", steps=2000, episodes=200, greedy=True)["exploitability"] > 0.05


def test_in_training_the_networks_exploitability_is_recorded_and_said_to_be_that(runs):
    agent = load_agent(runs["alphazero"])[0]
    value = exact_exploitability(agent, BITS)
    network = exact_exploitability(NetworkPlayer(agent), BITS)
    assert value == pytest.approx(network)
    found = measure(agent, BITS, None, 2, seed=0, exploitability=value)
    assert "of the network alone, without its search" in measured_lines(found)[0]
    assert (
        "network" not in measured_lines(measure(NetworkPlayer(agent), BITS, None, 2, seed=0, exploitability=value))[0]
    )


@pytest.mark.slow
def test_evaluation_with_a_search(runs, capsys, tmp_path):
    alone = evaluate_run(runs["ppo"], 4)["measured"]["exploitability"]
    assert alone > 0.1
    assert evaluate_run(runs["ppo"], 4, search={"simulations": 100})["measured"]["exploitability"] == pytest.approx(0)
    assert main(["eval", runs["ppo"], "--episodes", "4", "--search.simulations", "100", "--search.method", "puct"]) == 0
    assert float(re.search(r"exploitability (\S+)", capsys.readouterr().out)[1]) == pytest.approx(0)
    # Against perfect play each seat gets its value at most: the other one's searched play loses nothing more.
    file = tmp_path / "out.json"
    words = ["eval", runs["ppo"], "--opponents", "mcts@simulations=200", "--episodes", "20", "--json", str(file)]
    returns = []
    for more in ([], ["--search.simulations", "100"]):
        assert main([*words, *more]) == 0
        returns.append(json.loads(file.read_text())["return_mean"])
    assert returns[0] < returns[1] == 0  # both perfect: the two seats' values add up to 0
    assert evaluate_against(runs["reinforce"], runs["alphazero"], 4, search={"simulations": 100})["return_mean"] == 0


def test_a_tournament_with_a_search(runs, tmp_path, capsys):
    entries = open_entries([runs["ppo"], runs["q-learning"], "mcts@simulations=5"], search={"simulations": 7})
    assert [type(agent).__name__ for agent in entries.agents.values()] == ["SearchPlayer", "TabularQ", "MCTSBot"]
    bots = ["mcts@simulations=50", "mcts@simulations=60"]
    words = ["tournament", runs["ppo"], *bots, "--games", "4", "--out", str(tmp_path / "t")]
    assert main([*words, "--search.simulations", "50"]) == 0
    assert "mcts@simulations=50" in capsys.readouterr().out
    assert main([*words, "--search.simulations", "51"]) == 2  # another tournament
    assert main([*words, "--search.simulations", "50", "--games", "6"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval {c4} --search.simulations -1", "--search.NAME: simulations: got -1; wanted a number from 0 to"),
        ("eval {c4} --search.simulations x", "--search.simulations: got 'x'; wanted a whole number"),
        ("eval {c4} --search.simulation 5", "unknown flag --search.simulation; did you mean --search.simulations"),
        ("eval {c4} --search.method alpha", "--search.method: got 'alpha'; wanted"),
        ("eval {q-learning} --search.simulations 5", "TabularQ has no policy_and_value to guide a search"),
        (
            "exploit {q-learning} --search.simulations 5",
            "--search.NAME: none of the players can search; wanted a trained",
        ),
        ("exploit {c4} {ppo} --search.simulations 5", "was trained on the"),
        ("eval {c4} --opponents mcts@simulations=0", "mcts@simulations=0: simulations: got 0; wanted"),
        ("eval {c4} --opponents mctz@simulations=2", "did you mean 'mcts'"),
        ("tournament {c4} mcts@depth=2", "entries: mcts@depth=2: mcts@depth=2: got 'depth=2' after the @"),
        ("tournament {c4} mctz@depth=2", "did you mean 'mcts'"),
        ("eval nowhere.zip CartPole-v1 --search.simulations 3", "--search.NAME is for runs; MODEL.zip has no critic"),
    ],
)
def test_mistakes_are_refused(runs, capsys, words, message):
    assert main(words.format(**runs).split()) == 2
    assert message in capsys.readouterr().err


def test_a_game_that_cannot_be_searched_is_refused(tmp_path, capsys):
    run = str(tmp_path / "blotto")
    assert main(["train", "ppo", "mlbits/Blotto-v0", *TINY, *SMALL["ppo"].split(), "--out", run]) == 0
    for command in ("eval", "exploit"):
        assert main([command, run, "--search.simulations", "5"]) == 2
        assert "got Blotto with 2 seats that act at once; wanted one seat" in capsys.readouterr().err
    assert main(["eval", run, "--episodes", "2", "--search.simulations", "0"]) == 0
