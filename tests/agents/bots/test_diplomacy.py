"""Bots for Diplomacy boards, on positions set up by hand and over whole games."""

import pytest
import torch
from gymnasium import spaces

from mlbits.agents import AGENTS
from mlbits.agents.agent import AgentError, rows
from mlbits.agents.bots.diplomacy import GreedyBot, GreedyConfig, HoldBot, HoldConfig
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import BUILD, DISBAND, HOLD, MOVE, RETREAT, SUPPORT_MOVE, WAIVE
from mlbits.envs.diplomacy.game import game_on
from mlbits.envs.diplomacy.vocabulary import vocabulary
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.head_to_head import play_against
from tests.agents.rollouts import VECTOR, draw

MINI = "mlbits/DiplomacyMini-v0"
pytestmark = pytest.mark.slow  # the board takes half a minute to compile
BOARD = load_board("mini")
WORDS = vocabulary(BOARD)
# All units at home, by power; changed by each test.
CENTERS = {"ARDEN": ["ALT", "AVE"], "BRENN": ["BAY", "BIR"], "CORVO": ["CAP", "COR"]}


def batch_of(start=None, copies=1):
    game = game_on(BOARD, 1908, "draw_size", "standard", "datc-2.4", start, name="DiplomacyMini")  # by its driver
    return GameBatch(game, copies, seed=1)


def made(kind, batch, **settings):
    config = {HoldBot: HoldConfig, GreedyBot: GreedyConfig}[kind](**settings)
    return kind(config, batch.observation_space, batch.action_space)


def given(batch, action, row):
    """The orders of one row by name: kind, acting area, supported area, target."""
    found = []
    for number, choice in zip(rows(batch.obs, 2)["slots"][row].tolist(), action[row].tolist(), strict=True):
        if number:
            entry = int(batch.action_space.list_start[number - 1]) + choice
            parts = {name: int(values[entry]) for name, values in batch.action_space.entries.items()}
            names = [BOARD.provinces[parts[n]].id if parts[n] >= 0 else "" for n in ("actor", "other", "target")]
            found.append((parts["kind"], *names))
    return found


def decide(kind, position, seat=0, seed=0, **settings):
    batch = batch_of(position)
    bot = made(kind, batch, **settings)
    decision = bot.act(rows(batch.obs, 2), batch.legal_mask.flatten(0, 1), draw(seed))
    assert batch.legal_mask.flatten(0, 1).view(*decision.action.shape, -1).gather(2, decision.action[..., None]).all()
    return given(batch, decision.action, seat)


def position(phase, units, centers=None, **more):
    return {"phase": phase, "units": units, "centers": CENTERS | (centers or {}), **more}


def test_the_bot_that_holds_holds():
    assert decide(HoldBot, position("S1901M", {"ARDEN": ["A ALT", "F AVE"]})) == [
        (HOLD, "ALT", "", ""), (HOLD, "AVE", "", ""),
    ]  # fmt: skip
    out = {"A ALT": {"power": "ARDEN", "from": "EMA", "retreats": ["ARN", "WMA"]}}
    assert decide(HoldBot, position("F1901R", {"BRENN": ["A ALT"]}, dislodged=out)) == [(DISBAND, "ALT", "", "")]
    assert decide(HoldBot, position("W1901A", {"ARDEN": ["A ARN"]})) == [(WAIVE, "", "", "")]


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_a_centre_out_of_the_enemys_reach(seed):
    units = {"ARDEN": ["A ALT"], "BRENN": ["A BOR"]}  # from BOR an army reaches EMA, not WMA
    assert decide(GreedyBot, position("S1901M", units), seed=seed) == [(MOVE, "ALT", "", "WMA")]


def test_greedy_holds_a_new_centre_in_fall_and_moves_on_in_spring():
    units = {"ARDEN": ["A WMA"]}
    assert decide(GreedyBot, position("F1901M", units)) == [(HOLD, "WMA", "", "")]
    taken = {"ARDEN": ["ALT", "AVE", "WMA"]}
    ((kind, actor, _, target),) = decide(GreedyBot, position("S1902M", units, taken))
    assert (kind, actor) == (MOVE, "WMA")
    assert target in ("COR", "COL", "ARN", "ALT")


@pytest.mark.parametrize("seed", range(5))
def test_greedy_supports_its_attack_on_an_occupied_centre(seed):
    centers = {"ARDEN": ["ALT", "AVE", "WMA", "ISL"], "BRENN": ["BAY", "BIR", "EMA"], "CORVO": ["CAP", "COR", "SMA"]}
    orders = decide(
        GreedyBot, position("S1902M", {"ARDEN": ["A ALT", "A ARN"], "BRENN": ["A EMA"]}, centers), seed=seed
    )
    assert sorted(orders) in (
        [(MOVE, "ALT", "", "EMA"), (SUPPORT_MOVE, "ARN", "ALT", "EMA")],
        [(MOVE, "ARN", "", "EMA"), (SUPPORT_MOVE, "ALT", "ARN", "EMA")],
    )


def test_greedy_does_not_attack_without_support():
    centers = {"ARDEN": ["ALT", "AVE", "WMA", "ISL"], "BRENN": ["BAY", "BIR", "EMA"], "CORVO": ["CAP", "COR", "SMA"]}
    assert decide(GreedyBot, position("S1902M", {"ARDEN": ["A ALT"], "BRENN": ["A EMA"]}, centers)) == [
        (HOLD, "ALT", "", "")
    ]


@pytest.mark.parametrize("phase", ["S1902M", "F1902M"])
def test_greedy_returns_to_a_threatened_centre(phase):
    centers = {"ARDEN": ["ALT", "AVE", "WMA", "ISL"], "BRENN": ["BAY", "BIR", "EMA"], "CORVO": ["CAP", "COR", "SMA"]}
    units = {"ARDEN": ["A ARN"], "BRENN": ["A EMA"]}  # EMA borders ALT; WMA and AVE are out of its reach
    assert decide(GreedyBot, position(phase, units, centers)) == [(MOVE, "ARN", "", "ALT")]


def test_greedy_retreats_home_and_disbands_only_if_it_has_to():
    out = {"A EMA": {"power": "ARDEN", "from": "BIR", "retreats": ["ALT", "ARN"]}}
    assert decide(GreedyBot, position("S1902R", {"BRENN": ["A EMA"]}, dislodged=out)) == [(RETREAT, "EMA", "", "ALT")]
    out["A EMA"]["retreats"] = []
    assert decide(GreedyBot, position("S1902R", {"BRENN": ["A EMA"]}, dislodged=out)) == [(DISBAND, "EMA", "", "")]


@pytest.mark.parametrize("seed", range(5))
def test_greedy_builds_in_different_places_and_disbands_different_units(seed):
    built = decide(GreedyBot, position("W1901A", {}), seed=seed)
    assert {actor for _, actor, _, _ in built} == {"ALT", "AVE"}
    assert all(kind >= BUILD and kind != WAIVE for kind, *_ in built)
    units = {"ARDEN": ["A ALT", "A ARN", "F AVE", "A WMA"]}
    gone = decide(GreedyBot, position("W1901A", units), seed=seed)
    assert [kind for kind, *_ in gone] == [DISBAND, DISBAND]
    assert len({actor for _, actor, _, _ in gone}) == 2
    assert "WMA" not in {actor for _, actor, _, _ in gone}  # it stands on a centre that it could take


def test_greedys_units_never_bounce_each_other():
    copies = 40
    batch = batch_of(copies=copies)
    bot = made(GreedyBot, batch)
    generator, moves, supports = draw(4), 0, 0
    for _ in range(25):
        action = bot.act(rows(batch.obs, 2), batch.legal_mask.flatten(0, 1), generator).action
        for row in range(3 * copies):
            orders = given(batch, action, row)
            goes = {actor: to for kind, actor, _, to in orders if kind in (MOVE, RETREAT)}
            stays = {actor for kind, actor, _, _ in orders if kind in (HOLD, SUPPORT_MOVE)}
            assert len(set(goes.values())) == len(goes)
            assert not stays & set(goes.values())
            assert not any(goes.get(to) == actor for actor, to in goes.items())
            for kind, _, helped, to in orders:
                if kind == SUPPORT_MOVE:
                    assert goes[helped] == to
                    supports += 1
            moves += len(goes)
        batch.step(action.view(copies, 3, -1))
    assert moves > 2000
    assert supports > 300


def test_greedy_beats_random_play_and_holding():
    batch = batch_of()
    bots = {GreedyBot: made(GreedyBot, batch), HoldBot: made(HoldBot, batch)}
    chance = RandomAgent(batch.observation_space, batch.action_space)
    against_chance = play_against(bots[GreedyBot], chance, MINI, 60, seed=0)
    assert against_chance["won"] > 0.9
    assert play_against(chance, bots[GreedyBot], MINI, 30, seed=0)["won"] < 0.1
    assert play_against(bots[GreedyBot], bots[HoldBot], MINI, 15, seed=0)["won"] > 0.9
    assert play_against(bots[GreedyBot], chance, MINI, 60, seed=0) == against_chance


def test_without_noise_a_row_does_not_depend_on_the_batch():
    batch = batch_of(copies=30)
    bot, chance = made(GreedyBot, batch, noise=0.0), RandomAgent(batch.observation_space, batch.action_space)
    generator = draw(2)
    for _ in range(12):
        obs, mask = rows(batch.obs, 2), batch.legal_mask.flatten(0, 1)
        batch.step(chance.act(obs, mask, generator).action.view(30, 3, -1))
    together = bot.act(obs, mask, draw(0)).action
    for row in range(0, 90, 7):
        one = {name: part[row : row + 1] for name, part in obs.items()}
        assert torch.equal(bot.act(one, mask[row : row + 1], draw(5)).action[0], together[row])


def test_bots_refuse_other_spaces():
    batch = batch_of()
    for kind, config in ((HoldBot, HoldConfig()), (GreedyBot, GreedyConfig())):
        with pytest.raises(AgentError, match="wanted those of a Diplomacy board"):
            kind(config, VECTOR, batch.action_space)
        with pytest.raises(AgentError, match="wanted those of a Diplomacy board"):
            kind(config, batch.observation_space, spaces.MultiDiscrete([2, 3]))
        bot = kind(config, batch.observation_space, batch.action_space)
        assert bot.experience is None
        assert bot.state_dict() == {}
        with pytest.raises(AgentError, match="does not learn"):
            bot.learn(None, 0.0, draw())
    with pytest.raises(AgentError, match="noise: got -1"):
        GreedyConfig(noise=-1)
    bots = {name for name, entry in AGENTS.items() if entry.bot}
    assert bots == {"random", "mcts", "diplomacy-hold", "diplomacy-greedy"}
