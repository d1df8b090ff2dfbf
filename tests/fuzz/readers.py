"""The readers, each with sound inputs to start from, and with what has to hold for an input that it accepts."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mlbits.envs.board.chess.fen import from_fen, to_fen
from mlbits.envs.board.chess.notation import action_of_san, action_of_uci, legal_actions, san, uci_of_action
from mlbits.envs.board.chess.pgn import read_pgn, write_pgn
from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.core.plain_json import read_json
from mlbits.envs.core.printing import printable
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.files.position_line import position_text, read_position_text
from mlbits.envs.diplomacy.files.replay_page import frames_of, html_page
from mlbits.envs.diplomacy.files.saved_games import game_to_json, read_games
from mlbits.envs.diplomacy.files.vectors import read_vectors
from mlbits.envs.diplomacy.order_parser import order_text, parse_order
from mlbits.envs.diplomacy.position import first_position
from tests.envs.board.chess import fuzz as chess
from tests.fuzz.states import Reader, states

ROOT = Path(__file__).parents[1]
MATRIX, RUN = "mlbits/MatrixGame-v0", "train ppo mlbits/MatrixGame-v0"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# Notation


@contextlib.contextmanager
def _fen() -> Iterator[Reader]:
    def read(data: bytes) -> None:
        state = from_fen(_text(data))
        again = from_fen(to_fen(state))
        assert all(np.array_equal(again[name], state[name]) for name in ("pieces", "sides", "castling", "passant"))

    yield Reader([fen.encode() for fen in chess.FENS], read)


@contextlib.contextmanager
def _pgn() -> Iterator[Reader]:
    def read(data: bytes) -> None:
        games = read_pgn(_text(data))
        assert [game.actions for game in read_pgn(write_pgn(games))] == [game.actions for game in games]

    yield Reader([pgn.encode() for pgn in chess.PGNS], read)


@contextlib.contextmanager
def _moves(read_move: Callable[[Any, str], int], write_move: Callable[[Any, int], str]) -> Iterator[Reader]:
    states = [from_fen(fen) for fen in chess.FENS]
    legal = [set(legal_actions(state).tolist()) for state in states]

    def read(data: bytes) -> None:
        found = 0
        for state, actions in zip(states, legal, strict=True):
            with contextlib.suppress(MlbitsError):
                assert read_move(state, _text(data)) in actions
                found += 1
        if not found:
            raise GameError("no move of any position")

    seeds = {write_move(state, action) for state, actions in zip(states, legal, strict=True) for action in actions}
    yield Reader([word.encode() for word in sorted(seeds)], read)


@contextlib.contextmanager
def _orders() -> Iterator[Reader]:
    board = load_board()
    position = first_position(board)

    def read(data: bytes) -> None:
        order = parse_order(_text(data), board, position)
        assert parse_order(order_text(order, board, position), board, position) == order

    words = "A PAR - BUR;F BRE S A PAR - PIC;A MAR H;F LON C A YOR - NWY;A VIE - TRI VIA;WAIVE;A PAR B"
    yield Reader([word.encode() for word in words.split(";")], read)


@contextlib.contextmanager
def _position_line() -> Iterator[Reader]:
    board = load_board()
    retreat = "F1901R FRANCE:ABUR,FSPA/SC;GERMANY:AMUN FRANCE:PAR,SPA;GERMANY:MUN FRANCE:AMUN<BUR>BOH+TYR"

    def read(data: bytes) -> None:
        position = read_position_text(_text(data), board)
        assert read_position_text(position_text(position), board) == position

    yield Reader([position_text(first_position(board)).encode(), retreat.encode()], read)


@contextlib.contextmanager
def _uci() -> Iterator[Reader]:
    from mlbits.evals.play.uci import Engine, Thinker

    engine = Engine(Thinker("mcts@simulations=1", {}), "engine", io.StringIO())
    engine.hear("isready")  # waits until all is compiled

    def read(data: bytes) -> None:
        for line in _text(data).splitlines()[:20]:
            if not line.split() or "go" not in line:  # searching is tested where it is built
                engine.hear(line)
        engine.finish()

    lines = b"uci\nisready\nucinewgame\nposition startpos moves e2e4 e7e5\nsetoption name Threads value 2\nstop\n"
    yield Reader([lines, b"position fen " + chess.FENS[1].encode() + b" moves e1g1\nisready\n"], read)


@contextlib.contextmanager
def _replay() -> Iterator[Reader]:
    from mlbits.evals.replays.page import page, read_page
    from mlbits.evals.replays.playing import record_replay
    from mlbits.selfplay.runs.saved_agents import open_guest

    random = {"random": open_guest("random", MATRIX)}

    def read(data: bytes) -> None:
        replay = read_page(_text(data))
        with contextlib.suppress(ValueError):  # numbers that are not finite, which are no JSON
            assert read_page(page(replay)) == replay

    yield Reader([page(record_replay(random, MATRIX)).encode()], read)


# Games


@contextlib.contextmanager
def _games() -> Iterator[Reader]:
    from tests.envs.diplomacy.files.test_saved_games import played

    board = load_board()

    def read(data: bytes) -> None:
        for game in read_games(_text(data), board):
            text = json.dumps(game_to_json(game))
            assert json.dumps(game_to_json(read_games(text, board)[0])) == text

    yield Reader([json.dumps(game_to_json(played())).encode()], read)


@contextlib.contextmanager
def _pages() -> Iterator[Reader]:
    """What a page says is text: it holds no element but its own."""
    from tests.envs.diplomacy.files.test_saved_games import played

    board = load_board()
    page = html_page(frames_of(played()))
    scripts = page.count("<script")

    def read(data: bytes) -> None:
        for game in read_games(_text(data), board)[:1]:
            made = html_page(frames_of(game)[:3], game.id)
            assert made.count("<script") == scripts and "\x1b" not in printable(made, "\n")

    form = game_to_json(played())
    yield Reader([json.dumps({**form, "phases": form["phases"][:2]}).encode()], read)


@contextlib.contextmanager
def _vectors() -> Iterator[Reader]:
    board = load_board()
    lines = (ROOT / "envs" / "diplomacy" / "datc.json").read_bytes()
    some = json.dumps({"vectors": json.loads(lines)["vectors"][:3]}).encode()
    with _file("vectors.json") as path:

        def read(data: bytes) -> None:
            path.write_bytes(data)
            for _ in read_vectors(path, board):
                pass

        yield Reader([some], read)


@contextlib.contextmanager
def _map() -> Iterator[Reader]:
    source = Path(load_board.__code__.co_filename).with_name("mini_map.json").read_bytes()
    with _file("map.json") as path:

        def read(data: bytes) -> None:
            path.write_bytes(data)
            first_position(load_board(str(path)))

        yield Reader([source], read)


# Runs


@contextlib.contextmanager
def _file(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlbits-fuzz-") as folder:
        yield Path(folder) / name


@cache
def _trained() -> Path:
    from mlbits.cli import main

    folder = Path(tempfile.mkdtemp(prefix="mlbits-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = f"{RUN} --total-steps 128 --num-envs 8 --agent.num-steps 8 --pool uniform --pool-every 32 --quiet --out"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*words.split(), str(folder / "run")]) == 0
    return folder / "run"


@contextlib.contextmanager
def _run() -> Iterator[Path]:
    """A small run with a pool of frozen copies."""
    with _file("run") as folder:
        shutil.copytree(_trained(), folder)
        yield folder


@contextlib.contextmanager
def _config() -> Iterator[Reader]:
    from mlbits.envs.registry import make_game, registered
    from mlbits.selfplay.runs.folder import CONFIG, read_settings

    with _run() as folder:
        path = folder / CONFIG

        def read(data: bytes) -> None:
            path.write_bytes(data)
            settings = read_settings(folder)
            if settings.env in registered():
                make_game(settings.env, **settings.env_settings)

        yield Reader([path.read_bytes()], read)


@contextlib.contextmanager
def _manifest() -> Iterator[Reader]:
    """Whatever is accepted has the weights that were saved."""
    from mlbits.selfplay.runs import checkpoints

    with _run() as folder:
        newest = checkpoints.found(folder / "checkpoints")[-1]
        path = newest / "manifest.json"
        sound = checkpoints.load(newest, {})

        def read(data: bytes) -> None:
            path.write_bytes(data)
            found = checkpoints.load(newest, {"env": MATRIX})
            assert found.state == sound.state

        yield Reader([path.read_bytes()], read)


@contextlib.contextmanager
def _checkpoint(file: str) -> Iterator[Reader]:
    """A file of a checkpoint with a manifest that fits: what a stranger can make."""
    from mlbits.selfplay.runs import checkpoints
    from mlbits.selfplay.runs.folder import finished_summary, read_settings, steps_done
    from mlbits.selfplay.session import open_session

    with _run() as folder:
        for old in checkpoints.found(folder / "checkpoints")[:-1]:
            shutil.rmtree(old)
        newest = checkpoints.found(folder / "checkpoints")[-1]
        manifest = json.loads((newest / "manifest.json").read_text())
        settings = read_settings(folder)

        def read(data: bytes) -> None:
            (newest / file).write_bytes(data)
            manifest["sha256"][file] = hashlib.sha256(data).hexdigest()
            (newest / "manifest.json").write_text(json.dumps(manifest))
            finished_summary(folder)
            steps_done(folder)
            session = open_session(settings)
            session.from_checkpoint(checkpoints.load(newest, {}), folder)
            session.batch.step(session.batch.sample_actions())

        yield Reader([(newest / file).read_bytes()], read)


@contextlib.contextmanager
def _summary() -> Iterator[Reader]:
    """``mlbits resume`` of a finished run prints its summary."""
    from mlbits.cli.training.resume import command
    from mlbits.selfplay.runs.folder import SUMMARY, finished_summary

    with _run() as folder:
        path = folder / SUMMARY

        def read(data: bytes) -> None:
            path.write_bytes(data)
            if finished_summary(folder) is None:
                raise MlbitsError("no summary")
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                command([str(folder)])
            assert "\x1b" not in said.getvalue()

        yield Reader([path.read_bytes()], read)


@contextlib.contextmanager
def _metrics() -> Iterator[Reader]:
    from mlbits.selfplay.curves.tracking import _drop_after

    with _file("metrics.jsonl") as path:

        def read(data: bytes) -> None:
            path.write_bytes(data)
            _drop_after(path, 64)
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                assert read_json(line)["env_steps"] <= 64

        rows = [{"env_steps": step, "return/train": 0.25} for step in (16, 32, 64, 96)]
        yield Reader(["".join(json.dumps(row) + "\n" for row in rows).encode()], read)


@contextlib.contextmanager
def _copy() -> Iterator[Reader]:
    """A frozen copy: its metadata are JSON within a safetensors file."""
    from mlbits.selfplay.runs.saved_agents import read_copy

    with _run() as folder:
        path = next((folder / "pool").glob("*.safetensors"))

        def read(data: bytes) -> None:
            path.write_bytes(data)
            read_copy(path, MATRIX)

        yield Reader([path.read_bytes()], read)


@contextlib.contextmanager
def _copy_about() -> Iterator[Reader]:
    """The metadata alone, in a file whose tensors are sound."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from mlbits.selfplay.runs.saved_agents import copy_settings, read_copy

    with _run() as folder:
        path = next((folder / "pool").glob("*.safetensors"))
        with safe_open(path, "pt") as file:
            about, tensors = file.metadata()["mlbits"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

        def read(data: bytes) -> None:
            save_file(tensors, path, {"mlbits": _text(data)})
            copy_settings(path)
            read_copy(path, MATRIX)

        yield Reader([about.encode()], read)


@contextlib.contextmanager
def _table() -> Iterator[Reader]:
    from mlbits.evals.tournament.match_table import read_matches

    head = {"table": "mlbits matches", "version": 1, "env": MATRIX, "env_settings": {}, "seats": 2}
    rows = [head, {"player": "a", "hash": "1"}, {"player": "b", "hash": "2"}]
    rows += [{"game": [0, 1], "returns": [1.0, -1.0]}, {"game": [1, 0], "returns": [0.5, -0.5]}]
    with _file("matches.jsonl") as path:

        def read(data: bytes) -> None:
            path.write_bytes(data)
            table = read_matches(path)
            assert np.isfinite(table.returns).all() and table.seating.shape == table.returns.shape

        yield Reader(["".join(json.dumps(row) + "\n" for row in rows).encode()], read)


@contextlib.contextmanager
def _facts() -> Iterator[Reader]:
    """``tournament.json`` of a folder in which a tournament is to go on."""
    from mlbits.evals.tournament.tournament import FACTS, _check_folder

    facts = {
        "tournament": "mlbits tournament", "version": 1, "mlbits": "0", "env": MATRIX, "env_settings": {},
        "entries": {"a": "1", "b": "2"}, "games": 4,
        "format": "all", "rounds": 0, "seed": 0, "greedy": False, "num_envs": 8,
    }  # fmt: skip
    with _file(FACTS) as path:

        def read(data: bytes) -> None:
            path.write_bytes(data)
            _check_folder(path.parent, facts)

        yield Reader([json.dumps(facts).encode()], read)


# Models of Stable-Baselines3


@contextlib.contextmanager
def _model(member: str) -> Iterator[Reader]:
    """A member of a saved model; nothing in it is unpickled."""
    import stable_baselines3

    from mlbits.agents.sb3.agent import load_sb3

    with _file("model.zip") as path:
        kwargs = {"net_arch": {"pi": [8], "vf": [6]}}
        stable_baselines3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, policy_kwargs=kwargs, device="cpu").save(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in ("data", "policy.pth")}
        if member == "data":
            form = json.loads(members["data"])
            names = ("policy_class", "observation_space", "action_space", "policy_kwargs", "use_sde", "clip_range")
            form = {name: form[name] for name in (*names, "num_timesteps")}
            for name in ("policy_class", "clip_range", "observation_space", "action_space"):
                form[name][":serialized:"] = ""
            form["policy_class"] = {k: form["policy_class"][k] for k in (":type:", "__module__", "__init__")}
            members["data"] = json.dumps(form).encode()

        def read(data: bytes) -> None:
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, data if name == member else content)
            load_sb3(path)

        yield Reader([members[member]], read)


@contextlib.contextmanager
def _zip() -> Iterator[Reader]:
    with _model("data") as reader, _file("model.zip") as path:
        from mlbits.agents.sb3.agent import algorithm_of

        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data", reader.seeds[0])

        def read(data: bytes) -> None:
            path.write_bytes(data)
            algorithm_of(path)

        yield Reader([path.read_bytes()], read)


@contextlib.contextmanager
def _rule(metadata_alone: bool) -> Iterator[Reader]:
    """A rule's file; or its metadata alone, with the digest that belongs to them, in a file whose tensors are sound."""
    from safetensors.torch import save_file

    from mlbits.agents.learned_rules import files
    from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rule.safetensors"
        rule = LPGRule(RuleConfig(predictions=2, hidden=1))
        files.save_rule(path, rule, learning_rate=40, alpha=0.5, about={"levels": {"levels": "small"}})
        digest, tensors = files.load_rule(path).digest, rule.state_dict()
        metadata = {"format": files.FORMAT, "predictions": "2", "hidden": "1", "discount": "0.99", "sign": "ascent",
                    "learning_rate": "40.0", "alpha": "0.5", "about": '{"levels": [1, 2.5, null]}'}  # fmt: skip

        def read(data: bytes) -> None:
            path.write_bytes(data)
            assert files.load_rule(path).digest == digest

        def read_metadata(data: bytes) -> None:
            try:
                found = read_json(_text(data))
                json.dumps(found, ensure_ascii=False).encode()
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
                raise GameError("no metadata, which are texts by name")
            save_file(tensors, path, found | {"digest": files._digest(found, tensors)})
            saved = files.load_rule(path)
            assert saved.rule.config.predictions == 2 and saved.learning_rate >= 0

        yield (
            Reader([json.dumps(metadata).encode()], read_metadata)
            if metadata_alone
            else Reader([path.read_bytes()], read)
        )


_PLAYED = (
    "GridWorld RandomGridWorld Bandit Knapsack DelayedChain CollectObjects DeepSea Catch TMaze Digits MatrixGame "
    "IteratedMatrixGame Blotto Goofspiel TicTacToe ConnectFour Othello Hex Go Chess DiplomacyMini DiplomacyFvA "
    "Diplomacy"
)
READERS: dict[str, Callable[[], contextlib.AbstractContextManager[Reader]]] = {
    "fen": _fen,
    "pgn": _pgn,
    "san": partial(_moves, action_of_san, san),
    "uci-moves": partial(_moves, action_of_uci, uci_of_action),
    "uci": _uci,
    "replay": _replay,
    "orders": _orders,
    "positions": _position_line,
    "games": _games,
    "pages": _pages,
    "vectors": _vectors,
    "map": _map,
    "config": _config,
    "manifest": _manifest,
    "counters": partial(_checkpoint, "state.json"),
    "arrays": partial(_checkpoint, "arrays.safetensors"),
    "weights": partial(_checkpoint, "weights.safetensors"),
    "summary": _summary,
    "metrics": _metrics,
    "copy": _copy,
    "copy-metadata": _copy_about,
    "table": _table,
    "tournament": _facts,
    "rule": partial(_rule, False),
    "rule-metadata": partial(_rule, True),
    "sb3-data": partial(_model, "data"),
    "sb3-weights": partial(_model, "policy.pth"),
    "sb3-zip": _zip,
    **{f"state-{name}": partial(states, f"mlbits/{name}-v0") for name in _PLAYED.split()},
}
