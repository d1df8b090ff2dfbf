"""``mlbits check``: damage of every kind is found and named; what is whole is said to be; nothing is changed."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import mlbits
from mlbits.agents import make_bot
from mlbits.cli import main
from mlbits.evals.integrity import NothingToCheckError, check
from mlbits.evals.tournament.config import TournamentConfig
from mlbits.evals.tournament.tournament import play_tournament
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.training import train

MATRIX = "mlbits/MatrixGame-v0"
GAMES = Path(__file__).parents[1] / "envs" / "diplomacy" / "files"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with two checkpoints and a pool of three copies."""
    settings = resolve(
        "ppo", MATRIX, preset="none", agent_settings={"num_steps": 8, "hidden": [8], "epochs": 1, "minibatches": 1},
        run={"num_envs": 24, "total_steps": 384, "pool": "uniform", "pool_every": 192, "checkpoint_every": 192,
             "eval_episodes": 2, "video": False},
    )  # fmt: skip
    return train(settings, tmp_path_factory.mktemp("check") / "run", console=False)[0]


@pytest.fixture
def copied(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_run_is_whole_and_unchanged(run, capsys):
    before = contents(run)
    assert main(["check", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{run}: run, whole"
    assert said[-1] == "  usable: evaluation and resuming from step-000000000384"
    assert "  3 frozen copies" in said
    assert any(line.startswith("  TensorBoard: ") and line.endswith(" records in 1 files") for line in said)
    for part in ["checkpoints/step-000000000192", "pool/copy-0002-*.safetensors"]:
        assert main(["check", str(*run.glob(part))]) == 0
    assert contents(run) == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 8
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("part", "newest_usable"),
    [
        ("checkpoints/step-000000000384/weights.safetensors", "step-000000000192"),
        ("checkpoints/step-000000000384/state.json", "step-000000000192"),
        ("checkpoints/step-000000000192/arrays.safetensors", "step-000000000384"),
        ("pool/copy-0002-*.safetensors", "step-000000000192"),  # frozen at 384
        ("pool/copy-0000-*.safetensors", None),
        ("config.json", "lost"),
        ("metrics.jsonl", "step-000000000384"),
        ("summary.json", "step-000000000384"),
    ],
)
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_named_and_what_is_left_too(part, newest_usable, damage, copied, capsys):
    if part == "metrics.jsonl":
        damage = lambda path: path.write_bytes(path.read_bytes().replace(b'"env_steps"', b'"env_stops"', 1))  # noqa: E731
    if damage is flip and part in ("config.json", "summary.json"):
        damage = lambda path: path.write_bytes(path.read_bytes()[:-4])  # noqa: E731
    [file] = copied.glob(part)
    part = str(file.relative_to(copied))
    damage(file)
    assert main(["check", str(copied)]) == 1
    said = capsys.readouterr().out
    first, *lines = said.splitlines()
    assert first == f"{copied}: run, DAMAGED"
    name = part if part.count("/") < 2 else part.rpartition("/")[0]
    assert any(line.startswith("  damaged: ") and name in line for line in lines)
    wanted = {None: "nothing to resume from: no whole checkpoint", "lost": "the settings are lost; "}
    assert lines[-1].startswith(
        f"  {wanted.get(newest_usable, f'usable: evaluation and resuming from {newest_usable}')}"
    )


def test_the_copies_of_a_run_in_shards_are_looked_at_too(tmp_path):
    settings = resolve(
        "ppo", MATRIX, preset="none", agent_settings={"num_steps": 4, "hidden": [4], "epochs": 1, "minibatches": 1},
        run={"num_envs": 8, "total_steps": 32, "pool": "latest", "shards": 2, "eval_episodes": 1, "video": False},
    )  # fmt: skip
    folder, _ = train(settings, tmp_path / "run", console=False)
    assert check(folder).damages == []
    [copy] = (folder / "pool").iterdir()
    copy.unlink()
    [damage] = check(folder).damages
    assert damage.endswith(f"names the frozen copy {copy.name}, which is missing or another one")


def test_weights_that_are_no_numbers_are_damage(copied):
    """With digests that fit: an older version saved them."""
    newest = copied / "checkpoints" / "step-000000000384"
    found = checkpoints.load(newest, {})
    found.weights["network.actor.head"][0] = torch.nan
    belongs_to = json.loads((newest / "manifest.json").read_text())["belongs_to"]
    checkpoints.save(copied / "checkpoints", 384, found, belongs_to, keep=2)
    report = check(copied)
    assert any("'network.actor.head' are not numbers" in line for line in report.damages)
    assert report.usable.endswith("step-000000000192")


def test_what_a_kill_leaves_is_no_damage(copied):
    (copied / "checkpoints" / ".step-000000000400.77.tmp").mkdir()
    (copied / "metrics.jsonl").open("ab").write(b'{"env_st')
    with one_writer(copied):
        report = check(copied)
    assert report.whole
    notes = "\n".join(report.notes)
    assert ".step-000000000400.77.tmp: left by an interrupted save" in notes
    assert "the last line is incomplete; resuming drops it" in notes
    assert f"process {os.getpid()}, since" in notes


def test_damage_of_tensorboards_file_is_named_and_a_cut_end_is_none(copied):
    (events,) = copied.glob("events.out.tfevents.*")
    data = events.read_bytes()
    events.write_bytes(data[:-7])
    report = check(copied)
    assert report.whole
    assert f"{events.name}: the last record is incomplete; TensorBoard leaves it out" in report.notes
    events.write_bytes(data[:30] + bytes([data[30] ^ 4]) + data[31:])
    report = check(copied)
    (damage,) = report.damages
    assert damage.startswith(f"{events}: the checksum of record 1 is wrong; ")
    assert report.usable.endswith("step-000000000384")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    game = mlbits.make_game(MATRIX)
    bots = {name: make_bot("random", game.observation_space, game.action_space, device="cpu") for name in "ab"}
    path = tmp_path_factory.mktemp("table") / "matches.jsonl"
    play_tournament(bots, MATRIX, TournamentConfig(games=6), path=path)
    return path


def test_match_tables(table, tmp_path):
    assert check(table).whole
    assert check(table).usable == "usable: 6 games"
    lines = table.read_bytes().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(b"".join(lines)[:-5])
    report = check(torn)
    assert (report.whole, report.usable) == (True, "usable: 5 games")
    assert "the last line is incomplete" in report.notes[0]
    spoilt = tmp_path / "spoilt.jsonl"
    spoilt.write_bytes(b"".join([*lines[:5], lines[5][:9] + lines[6], *lines[7:]]))
    report = check(spoilt)
    assert not report.whole
    assert f"{spoilt}, line 6" in report.damages[0]
    assert report.usable == "usable: 2 games, the first 5 lines"


def test_tournaments(table, tmp_path):
    folder = tmp_path / "tournament"
    folder.mkdir()
    shutil.copy(table, folder / "matches.jsonl")
    players = {row["player"]: row["hash"] for row in map(json.loads, table.read_text().splitlines()) if "player" in row}
    (folder / "tournament.json").write_text(json.dumps({"tournament": "mlbits tournament", "entries": players}))
    assert check(folder).whole
    (folder / "tournament.json").write_text(json.dumps({"entries": {"a": "another", "b": players["b"]}}))
    assert check(folder).damages == ["matches.jsonl: the player a is no entry of tournament.json"]
    (folder / "tournament.json").write_text("")
    assert "tournament.json: damaged" in check(folder).damages[0]
    assert check(folder).usable == "usable: 6 games"


def test_saved_games(tmp_path):
    path = tmp_path / "games.jsonl"
    path.write_text(2 * (json.dumps(json.loads((GAMES / "three_phases.json").read_text())) + "\n"))
    assert check(path).whole
    assert check(path).usable == "usable: 2 games"
    one, two = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(one[: len(one) // 2] + b"\n" + two)
    report = check(path)
    assert f"{path}, line 1" in report.damages[0]
    assert report.usable == "usable: 1 game"
    chess = tmp_path / "games.pgn"
    chess.write_text("1. e4 e5 1-0\n\n1. e4 e9 1-0\n")
    report = check(chess)
    assert "line 3" in report.damages[0]
    assert report.usable == "usable: 1 game before the damage"


def test_what_is_none_of_these_is_refused(tmp_path, capsys):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(NothingToCheckError, match=f"^paths: {path} "):
            check(path)
    assert main(["check"]) == 2
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_reports_as_json(run, table, tmp_path):
    assert main(["check", str(run), str(table), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(one["kind"], one["whole"]) for one in found] == [("run", True), ("match table", True)]
