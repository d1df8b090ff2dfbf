"""States that rules could not have written are refused before compiled rules read them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mlbits.envs.board.chess.fen import from_fen
from mlbits.envs.core.errors import GameError
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.engine.state_checks import check_states
from mlbits.envs.registry import make_game, registered

OURS = [name for name in registered() if name.startswith("mlbits/")]  # not those that other tests register
COMPILE_LONG = ("Diplomacy", "Chess", "Go-", "Othello", "Hex", "Goofspiel")
FAST = [name for name in OURS if not any(part in name for part in COMPILE_LONG)]


def played(name, steps, autoreset="same_step", **settings):
    batch = GameBatch(make_game(name, **settings), 8, seed=1, autoreset=autoreset)
    for _ in range(steps):
        batch.step(batch.sample_actions())
    return batch


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in OURS if name not in FAST]


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_states_of_play_are_accepted(name):
    """Before the first episode, in play, and after the end."""
    batch = GameBatch(make_game(name), 8, start=False)
    batch.set_state(batch.state())
    for autoreset in ("same_step", "disabled"):
        batch = played(name, 0, autoreset)
        for _ in range(40):
            check_states(batch.game, batch.records())
            batch.step(batch.sample_actions())


def test_every_field_of_integers_has_a_range_or_a_reason():
    """Sets of bits may be any; the others are indices or counts. A game that is added has to say which."""
    free = {"rng_key", "rng_counter", "level", "shortest", "moves", "stones", "joined", "free", "taken", "reached"}
    free |= {"position", "seen", "ways"}
    for name in FAST:
        game = make_game(name)
        for field in game.state_dtype.names:
            kind = game.state_dtype[field].base.kind
            known = field in game.state_ranges or field in free or field in ("elapsed", "over") or kind == "f"
            assert known, f"{name}: {field}"


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("mlbits/GridWorld-v0", "cell", 64), ("mlbits/GridWorld-v0", "cell", -1), ("mlbits/Digits-v0", "example", 9999),
        ("mlbits/DeepSea-v0", "column", 2**31 - 1), ("mlbits/CartPole-v0", "x", np.nan), ("mlbits/Hex-v0", "turn", 2),
        ("mlbits/Bandit-v0", "means", np.inf), ("mlbits/Goofspiel-v0", "over", 2), ("mlbits/Go-v0", "elapsed", -1),
        ("mlbits/RandomGridWorld-v0", "goal", 64), ("mlbits/Hex-v0", "last", 121),
    ],
)  # fmt: skip
def test_fields_out_of_range_are_refused_by_name(name, field, value):
    batch = played(name, 2)
    before, states = batch.state(), batch.records()
    states[field].reshape(len(states), -1)[5, -1] = value
    with pytest.raises(GameError, match=rf"state: copy 5, {field}.*: got .*; wanted "):
        batch.set_state(states)
    assert torch.equal(batch.state(), before), "the batch is unchanged"
    batch.set_state(before)


@pytest.mark.slow  # compiles Go
def test_chains_of_go_have_to_be_rings():
    """A walk over a chain that does not come back to its start would never end; a stone on a stone breaks a ring."""
    batch = played("mlbits/Go-v0", 30, size=5)
    sound = batch.records()
    occupied = np.flatnonzero(sound["head"][2, :25] < 25)
    for change in ("following", "head", "moves", "seen"):
        states = sound.copy()
        if change == "following":
            states[change][2, occupied] = occupied[0]
        elif change == "head":
            states[change][2, occupied[0]] = 900
        elif change == "moves":
            states[change][2] = states["stones"][2, 0] | states["stones"][2, 1]
        else:
            states[change][2] = 1
        with pytest.raises(GameError, match="state: copy 2: its fields do not fit together in Go"):
            batch.set_state(states)
    batch.set_state(sound)


@pytest.mark.slow
def test_chess_without_a_king_is_refused():
    game = make_game("mlbits/Chess-v0")
    states = np.zeros(1, game.state_dtype)
    states[0] = np.asarray(from_fen("r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq - 0 1"))
    check_states(game, states)
    for field, index, value in (("pieces", 5, 0), ("sides", 0, 1), ("castling", None, 15), ("passant", None, 3)):
        damaged = states.copy()
        if field == "castling":
            damaged["pieces"][0, 3] = 0
            damaged["sides"][0] &= ~states["pieces"][0, 3]
        elif index is None:
            damaged[field][0] = value
        else:
            damaged[field][0, index] = value
        with pytest.raises(GameError, match="do not fit together in Chess"):
            check_states(game, damaged)


@pytest.mark.slow
def test_diplomacy_refuses_units_off_the_board():
    """The state that once ended the process: a unit in a place that is not on the board, or with no power."""
    batch = played("mlbits/DiplomacyMini-v0", 3)
    sound = batch.records()
    unit = int(np.flatnonzero(sound["unit_kind"][1])[0])
    for field, value in (("unit_place", 300), ("unit_power", 9), ("unit_power", -1), ("unit_kind", 3), ("phase", 77)):
        states = sound.copy()
        if states[field].ndim == 1:
            states[field][1] = value
        else:
            states[field][1, unit] = value
        with pytest.raises(GameError, match="state: copy 1"):
            batch.set_state(states)
    batch.set_state(sound)


@pytest.mark.slow
def test_rules_stay_within_their_memory_on_damaged_states(tmp_path):
    """Compiled with checks of every index. Without the checks of states this run finds faults."""
    code = (
        "from tests.fuzz.run import fuzz\nfrom mlbits.envs.engine import batch\nimport sys\n"
        "if sys.argv[1] == 'unchecked': batch.check_states = lambda game, states: None\n"
        "print(sum(len(fuzz(name, 400).faults) for name in ('state-GridWorld', 'state-Goofspiel', 'state-DeepSea')))"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120
    more = {"NUMBA_BOUNDSCHECK": "1", "MLBITS_CACHE_DIR": str(tmp_path / "cache")}
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    for how, least, most in (("checked", 0, 0), ("unchecked", 1, 100)):
        words = [sys.executable, "-c", code, how]
        done = subprocess.run(
            words, cwd=tmp_path, env={**os.environ, **more, "PYTHONPATH": path}, capture_output=True, text=True
        )
        assert least <= int(done.stdout.split()[-1]) <= most, done.stdout + done.stderr
