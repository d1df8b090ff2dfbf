"""Tournaments: correct rankings, interruption at any moment, and errors before they start."""

import csv
import json
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image
from stable_baselines3 import PPO

from mlbits import cli
from mlbits.agents import make_bot
from mlbits.agents.agent import Decision, content_hash
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.benchmarks import groups
from mlbits.evals.jobs import ray_cluster
from mlbits.evals.jobs.job import JobError
from mlbits.evals.tournament import batches, tournament
from mlbits.evals.tournament.config import TournamentConfig, TournamentError
from mlbits.evals.tournament.entrants import open_entries
from mlbits.evals.tournament.match_table import MatchTableError, read_matches
from mlbits.evals.tournament.standings import standings
from mlbits.evals.tournament.tournament import MATCHES, hold_tournament, play_tournament, recompute
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.training import train
from tests.evals.jobs.elsewhere import everywhere

BLOTTO, MATRIX, SMALL = "mlbits/Blotto-v0", "mlbits/MatrixGame-v0", {"coins": 3}
RANKS = 5
HIGHER = np.sign(np.subtract.outer(np.arange(RANKS), np.arange(RANKS))).tolist()  # the higher action wins


class Leans:
    """Plays one action more often than not, else any with equal probability."""

    def __init__(self, action, share=0.6, actions=RANKS):
        self.config, self.action, self.share, self.actions, self.asked = (action, share), action, share, actions, []

    def act(self, obs, legal_mask, generator, *, greedy=False):
        self.asked.append(len(obs))
        count = len(obs)
        any_action = torch.randint(self.actions, (count,), generator=generator)
        mine = torch.rand(count, generator=generator) < (1.0 if greedy else self.share)
        action = torch.where(mine, self.action, any_action)
        return Decision(action, action, None)

    def state_dict(self):
        return {}


@pytest.fixture
def ladder():
    """Agents of rising strength, not in order."""
    return {f"rank {k}": Leans(k) for k in (2, 0, 4, 1, 3)}


def throwers():
    """Three agents for small games of Blotto."""
    return {f"leans {k}": Leans(k, 0.5, 10) for k in (0, 4, 6)}


def seat_counts(table):
    return np.stack([np.bincount(column, minlength=len(table.players)) for column in table.seating.T], 1)


# What a tournament finds


def test_players_of_known_strength_are_ranked_correctly(ladder):
    table = play_tournament(ladder, MATRIX, TournamentConfig(games=200), settings={"payoffs": HIGHER})
    assert table.names == tuple(ladder)
    assert table.players == {name: content_hash(agent) for name, agent in ladder.items()}
    assert len(table.seating) == 10 * 200
    assert (seat_counts(table) == 400).all()
    found = standings(table)
    assert [row["player"] for row in found.rows()] == [f"rank {k}" for k in (4, 3, 2, 1, 0)]
    # In the limit of infinite alpha the one that beats all others has all the rank, and all of the Nash mixture.
    top = list(ladder).index("rank 4")
    assert found.alpha_rank[top] == pytest.approx(1, abs=1e-6)
    assert found.nash[top] == pytest.approx(1)
    assert (found.matrix.meetings[~np.eye(5, dtype=bool)] == 200).all()
    # rank k earns, against the mean of the others, what the table of payoffs says.
    mixed = np.full((RANKS, RANKS), 0.4 / RANKS) + 0.6 * np.eye(RANKS)
    exact = mixed @ np.array(HIGHER) @ mixed.T
    order = [2, 0, 4, 1, 3]
    measured = found.matrix.payoff[~np.eye(5, dtype=bool)]
    assert np.abs(measured - exact[np.ix_(order, order)][~np.eye(5, dtype=bool)]).max() < 0.2


def test_a_swiss_tournament_finds_the_best_with_fewer_games(ladder):
    config = TournamentConfig(games=100, format="swiss", rounds=4)
    table = play_tournament(ladder, MATRIX, config, settings={"payoffs": HIGHER})
    assert len(table.seating) == 4 * 2 * 100
    found = standings(table)
    assert found.rows()[0]["player"] == "rank 4"
    assert found.rows()[-1]["player"] == "rank 0"
    assert found.alpha_rank is found.nash is found.nash_skill is None


def test_greedy_agents_do_not_sample(ladder):
    table = play_tournament(ladder, MATRIX, TournamentConfig(games=4, greedy=True), settings={"payoffs": HIGHER})
    played = np.array([2, 0, 4, 1, 3])[table.seating]
    assert np.array_equal(table.returns[:, 0], np.sign(played[:, 0] - played[:, 1]))


def test_each_agent_has_one_forward_pass_per_step(ladder):
    play_tournament(ladder, MATRIX, TournamentConfig(games=20), settings={"payoffs": HIGHER})
    assert all(agent.asked == [80] for agent in ladder.values())
    for agent in ladder.values():
        agent.asked.clear()
    play_tournament(ladder, MATRIX, TournamentConfig(games=20, num_envs=50), settings={"payoffs": HIGHER})
    assert {sum(agent.asked) for agent in ladder.values()} == {80}
    assert all(len(agent.asked) == 4 for agent in ladder.values())


@pytest.mark.parametrize(("seats", "entries"), [(3, 4), (7, 3), (7, 7), (7, 8)])
def test_games_of_many_seats(seats, entries):
    env = open_batch(BLOTTO, 1, settings={"coins": 3, "seats": seats})
    agents = {f"leans {k}": Leans(k, 0.5, 10) for k in range(entries - 1)}
    agents["random"] = make_bot("random", env.observation_space, env.action_space, device="cpu")
    table = play_tournament(agents, BLOTTO, TournamentConfig(games=14), settings={"coins": 3, "seats": seats})
    counts = seat_counts(table)
    assert table.seats == seats
    assert (counts == counts[:, :1]).all()
    found = standings(table)
    assert np.isfinite(found.ratings.elo).all()
    assert found.alpha_rank.sum() == pytest.approx(1)
    assert found.nash.sum() == pytest.approx(1)
    assert (found.matrix.meetings[~np.eye(entries, dtype=bool)] >= 14).all()


@pytest.mark.slow
def test_bots_on_the_small_diplomacy_board(tmp_path):
    words = ["diplomacy-hold", "diplomacy-greedy", "random"]
    _, found = hold_tournament(
        words, TournamentConfig(games=12), env="mlbits/DiplomacyMini-v0", out=tmp_path / "out"
    )  # fmt: skip
    assert found.table.seats == 3
    assert found.rows()[0]["player"] == "diplomacy-greedy"


# Interrupted and continued


CONFIG = TournamentConfig(games=20, num_envs=16, seed=3)


def played_to(path, config=CONFIG, agents=None):
    play_tournament(throwers() if agents is None else agents, BLOTTO, config, settings=SMALL, path=path)
    return path.read_bytes()


@pytest.mark.parametrize("config", [CONFIG, TournamentConfig(games=10, format="swiss", rounds=3, num_envs=8)])
def test_a_table_cut_anywhere_ends_the_same(tmp_path, config):
    whole = played_to(tmp_path / "whole.jsonl", config)
    path = tmp_path / "cut.jsonl"
    for size in [*np.random.default_rng(0).integers(len(whole), size=12).tolist(), 0, 1, 200, len(whole)]:
        path.write_bytes(whole[:size])
        assert played_to(path, config) == whole, size


def test_an_interrupted_tournament_plays_only_the_missing_games(tmp_path):
    path, agents = tmp_path / "matches.jsonl", throwers()

    def stop(played, total):
        assert total == 60
        if played >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play_tournament(agents, BLOTTO, CONFIG, settings=SMALL, path=path, report=stop)
    assert len(read_matches(path).seating) == 32
    for agent in agents.values():
        agent.asked.clear()
    played_to(path, agents=agents)
    assert sum(sum(agent.asked) for agent in agents.values()) == 2 * (60 - 32)
    assert path.read_bytes() == played_to(tmp_path / "whole.jsonl")


def test_other_processes_play_the_same_tournament(runs, tmp_path, monkeypatch):
    """They load the entrants by themselves; and the last batch may be played first."""
    words = [str(runs / "one"), str(runs / "two"), "random"]
    hold_tournament(words, CONFIG, out=tmp_path / "here")
    executor = everywhere(monkeypatch, tournament)
    hold_tournament(words, CONFIG, out=tmp_path / "there", jobs=3)
    assert executor.ran == 4
    for name in (MATCHES, "standings.json", "payoffs.csv"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    assert not [path for path in (tmp_path / "there").iterdir() if path.name.startswith(".")]


def test_a_cluster_that_does_not_answer_leaves_nothing(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_import_ray", lambda: SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(MlbitsError, match=r"cluster: got 'nowhere'; wanted HOST:PORT"):
        hold_tournament([str(runs / "one"), "random"], CONFIG, out=tmp_path / "out", cluster="nowhere")
    assert not (tmp_path / "out").exists()


def test_batches_that_were_played_are_not_played_again(runs, tmp_path, monkeypatch):
    """A driver that is killed while an early batch is still under way keeps the later ones."""
    words, whole = [str(runs / "one"), "random"], tmp_path / "whole"
    config = TournamentConfig(games=40, num_envs=8)
    hold_tournament(words, config, out=whole)
    executor = everywhere(monkeypatch, tournament, slots=2)
    working, kept = executor.next, []

    def killed():
        if executor.ran == 2:
            kept.extend((tmp_path / "out" / ".matches.jsonl.jobs").iterdir())
            raise KeyboardInterrupt
        return working()

    executor.next = killed
    with pytest.raises(KeyboardInterrupt):
        hold_tournament(words, config, out=tmp_path / "out", jobs=2)
    assert len(kept) == 2  # batches 3 and 4; the first is not there yet
    assert len(read_matches(tmp_path / "out" / MATCHES).seating) == 0
    executor.waiting.clear()
    kept[0].with_name(".left.json.17.tmp").touch()  # by a process that was killed while it wrote
    executor.next, before = working, executor.ran
    hold_tournament(words, config, out=tmp_path / "out", jobs=2)
    assert executor.ran == before + 3
    assert not (tmp_path / "out" / ".matches.jsonl.jobs").exists()
    assert (tmp_path / "out" / MATCHES).read_bytes() == (whole / MATCHES).read_bytes()


def test_an_entrant_that_is_another_one_elsewhere_is_refused(runs, tmp_path, monkeypatch):
    everywhere(monkeypatch, tournament)
    with monkeypatch.context() as at_first:
        at_first.setattr(tournament, "content_hash", lambda agent: "5e8f")
        with pytest.raises(JobError, match="games 1 to 16: entries: one is another agent here; wanted the same files"):
            hold_tournament([str(runs / "one"), "random"], CONFIG, out=tmp_path / "out", jobs=2)


def test_the_table_is_a_function_of_the_seed(tmp_path):
    one, other = (played_to(tmp_path / f"{seed}.jsonl", TournamentConfig(games=20, seed=seed)) for seed in (0, 1))
    assert one != other
    in_memory = play_tournament(throwers(), BLOTTO, TournamentConfig(games=20), settings=SMALL)
    stored = read_matches(tmp_path / "0.jsonl")
    assert (in_memory.env_settings, in_memory.players) == (stored.env_settings, stored.players)
    assert np.array_equal(in_memory.seating, stored.seating)
    assert np.array_equal(in_memory.returns, stored.returns)


def test_a_tournament_can_be_extended(tmp_path):
    few = played_to(tmp_path / "matches.jsonl")
    many = played_to(tmp_path / "matches.jsonl", TournamentConfig(games=40, num_envs=16, seed=3))
    assert many.startswith(few)
    assert len(read_matches(tmp_path / "matches.jsonl").seating) == 120
    with pytest.raises(TournamentError, match="the table has 120 games; wanted at most 60"):
        played_to(tmp_path / "matches.jsonl")
    assert (tmp_path / "matches.jsonl").read_bytes() == many


def test_another_tournaments_table_is_refused(tmp_path):
    path = tmp_path / "matches.jsonl"
    before = played_to(path)
    with pytest.raises(TournamentError, match="game 3 is not one of this schedule"):
        played_to(path, TournamentConfig(games=20, format="swiss", seed=1))
    with pytest.raises(TournamentError, match="the players are leans 0, leans 4, leans 6; wanted a, b, or another"):
        played_to(path, agents={"a": Leans(0), "b": Leans(1)})
    with pytest.raises(MatchTableError, match="leans 0 has the hash"):
        played_to(path, agents={**throwers(), "leans 0": Leans(1)})
    with pytest.raises(MatchTableError, match=r"env_settings: got .*coins.*; wanted"):
        play_tournament(throwers(), BLOTTO, CONFIG, settings={"coins": 4}, path=path)
    assert path.read_bytes() == before


# Entries


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Small runs: two on one game, and others on what does not fit with it."""
    folder = tmp_path_factory.mktemp("runs")
    games = {
        "one": (BLOTTO, SMALL, 0), "two": (BLOTTO, SMALL | {"fields": 3}, 1),
        "seven": (BLOTTO, SMALL | {"seats": 7}, 2), "wide": (BLOTTO, {"coins": 4}, 0),
        "throws": (MATRIX, {"payoffs": "rock_paper_scissors"}, 0), "hunt": (MATRIX, {"payoffs": "stag_hunt"}, 0),
        "chicken": (MATRIX, {"payoffs": "chicken"}, 0),
    }  # fmt: skip
    for name, (env, env_settings, seed) in games.items():
        settings = resolve(
            "ppo", env, preset="none", env_settings=env_settings,
            run={"total_steps": 64, "num_envs": 4, "video": False, "seed": seed, "eval_episodes": 2},
            agent_settings={"num_steps": 16, "hidden": [8]},
        )  # fmt: skip
        train(settings, folder / name, console=False)
    return folder


class OneSeat(gym.Env):
    """The spaces of a small game of Blotto, to train a model of Stable-Baselines3 on."""

    observation_space, action_space = spaces.Discrete(1), spaces.Discrete(10)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 0.0, True, False, {}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.zip"
    PPO("MlpPolicy", OneSeat(), n_steps=8, batch_size=8, device="cpu").learn(8).save(path)
    return path


def test_runs_models_and_bots_enter_by_name(runs, model):
    entries = open_entries([str(runs / "one"), str(runs / "two"), str(model), "random"])
    assert (entries.env, entries.env_settings) == (BLOTTO, SMALL)
    assert list(entries.agents) == ["one", "two", "model.zip", "random"]
    assert len({content_hash(agent) for agent in entries.agents.values()}) == 4
    entries = open_entries([str(model), "random"], BLOTTO, {"coins": 3, "fields": 3})
    assert entries.env_settings == SMALL  # less what is so anyway


def test_names_are_as_short_as_unique(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    (tmp_path / "one").symlink_to(runs / "two")  # a name of its own leads to the same folder
    with pytest.raises(TournamentError, match="two is given twice; wanted each once"):
        open_entries([str(tmp_path / "one"), "two"])
    copy = tmp_path / "other" / "one"
    copy.mkdir(parents=True)
    (copy / "config.json").write_bytes((runs / "one" / "config.json").read_bytes())
    (copy / "checkpoints").symlink_to(runs / "one" / "checkpoints")
    assert list(open_entries(["one", str(copy)]).agents) == [f"{runs.name}/one", "other/one"]


def test_given_settings_override_those_of_the_runs(runs):
    words, given = [str(runs / name) for name in ("hunt", "chicken")], {"payoffs": "prisoners_dilemma"}
    message = (
        r'chicken was trained on mlbits/MatrixGame-v0 with {"payoffs": "chicken"}, .*hunt with .*; wanted one game'
    )
    with pytest.raises(TournamentError, match=message):
        open_entries(words)
    assert open_entries(words, env_settings=given).env_settings == given
    assert open_entries([str(runs / "throws"), "random"]).env_settings == {}  # the environment's own


@pytest.mark.parametrize(
    ("words", "flags", "message"),
    [
        (["one"], {}, "entries: got 1; wanted two or more"),
        (["one", "one"], {}, "one is given twice"),
        (["one", "rondom"], {}, r"entries: unknown entry .*'rondom'; did you mean 'random'\?"),
        (["one", "ppo"], {}, "ppo has not been trained; wanted the folder of a run, or a bot"),
        (["one", "."], {}, "no run here"),
        (["one", "no.zip"], {}, "no.zip: not found"),
        (["one", "diplomacy-greedy"], {}, "entries: diplomacy-greedy: diplomacy-greedy: got the action space"),
        (["random", "diplomacy-hold"], {}, "env: missing"),
        (["random", "one"], {"env": "mlbits/Bloto-v0"}, "did you mean 'mlbits/Blotto-v0'"),
        (["one", "seven"], {}, "seven was trained on mlbits/Blotto-v0, seats 7; wanted seats 2"),
        (["one", "two"], {"env_settings": {"seats": 7}}, "one was trained on .*, seats 2; wanted seats 7"),
        (["one", "wide"], {}, r"wide was trained on .*, action space Discrete\(15\); wanted .*\(10\)"),
        (["one", "throws"], {}, r"throws was trained on .*, observation space Discrete\(2\); wanted"),
        (["random", "one"], {"env": "CartPole-v1"}, "env: CartPole-v1 has one seat"),
        (["MODEL", "wide"], {}, r"model.zip: action_space: got Discrete\(15\); the model was trained on"),
        (["one", "random"], {"device": "tpu"}, "device: got 'tpu'"),
        (["seven", "random"], {"config": TournamentConfig(format="swiss")}, "entries: got 2; wanted at least 7 .Swiss"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_starts(runs, model, tmp_path, monkeypatch, words, flags, message):
    monkeypatch.chdir(runs)
    before = sorted(path.name for path in runs.iterdir())
    words = [str(model) if word == "MODEL" else word for word in words]
    config = flags.pop("config", TournamentConfig()) if "config" in flags else TournamentConfig()
    for out in (None, tmp_path / "out"):
        with pytest.raises(MlbitsError, match=message):
            hold_tournament(words, config, out=out, **flags)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in runs.iterdir()) == before


def test_unknown_names_are_unknown_ids(runs):
    with pytest.raises(UnknownIdError):
        open_entries(["random", "randomm"], BLOTTO)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"games": 0}, "games: got 0"), ({"seed": -1}, "seed: got -1"), ({"num_envs": 0}, "num_envs: got 0"),
        ({"format": "league"}, "format: got 'league'; wanted 'all' or 'swiss'"), ({"rounds": 3}, "wanted format swiss"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TournamentConfig(**settings)


def test_arguments_of_play_tournament_are_checked():
    with pytest.raises(TournamentError, match="got 1; wanted at least 2"):
        play_tournament({"a": Leans(0)}, BLOTTO)
    with pytest.raises(TournamentError, match="has one seat"):
        play_tournament({"a": Leans(0), "b": Leans(1)}, "mlbits/GridWorld-v0")


# Folders


def test_a_folder_is_continued_only_by_the_same_command(runs, tmp_path):
    words, out = [str(runs / "one"), "random"], tmp_path / "out"
    folder, found = hold_tournament(words, CONFIG, out=out)
    assert folder == out
    names = {path.name for path in out.iterdir()}
    assert names == {
        MATCHES, "tournament.json", "payoffs.csv", "payoffs.png", "standings.csv", "standings.json",
    }  # fmt: skip
    files = {name: (out / name).read_bytes() for name in names}
    hold_tournament(words, CONFIG, out=out)
    assert {name: (out / name).read_bytes() for name in names} == files
    assert recompute(out)[1].to_json() == found.to_json()
    assert {name: (out / name).read_bytes() for name in names} == files
    for other, message in (
        ({"seed": 4}, "a tournament with seed 3; wanted 4"), ({"greedy": True}, "greedy False; wanted True"),
        ({"games": 10}, "games 20; wanted 10"), ({"format": "swiss"}, "format"), ({"num_envs": 8}, "num_envs 16"),
    ):  # fmt: skip
        fields = {"games": 20, "num_envs": 16, "seed": 3} | other
        with pytest.raises(TournamentError, match=message):
            hold_tournament(words, TournamentConfig(**fields), out=out)
    with pytest.raises(TournamentError, match="a tournament with entries one, random; wanted one, random, two, or"):
        hold_tournament([*words, str(runs / "two")], CONFIG, out=out)
    facts = json.loads(files["tournament.json"])
    (out / "tournament.json").write_text(json.dumps(facts | {"entries": facts["entries"] | {"one": "of before"}}))
    with pytest.raises(TournamentError, match="entries one, random; wanted one as it was, or another folder"):
        hold_tournament(words, CONFIG, out=out)
    (out / "tournament.json").write_bytes(files["tournament.json"])
    with pytest.raises(TournamentError, match="is not empty and holds no tournament"):
        hold_tournament(words, CONFIG, out=runs)
    assert {name: (out / name).read_bytes() for name in names} == files


def test_the_files_agree_with_the_standings(runs, tmp_path):
    words = [str(runs / "one"), str(runs / "two"), "random"]
    _, found = hold_tournament(words, CONFIG, out=tmp_path)
    rows = list(csv.DictReader((tmp_path / "standings.csv").open()))
    plain = json.loads((tmp_path / "standings.json").read_text())
    assert plain == found.to_json()
    assert [row["player"] for row in rows] == [row["player"] for row in plain["players"]]
    assert [float(row["elo"]) for row in rows] == pytest.approx([row["elo"] for row in plain["players"]], rel=1e-5)
    payoffs = list(csv.DictReader((tmp_path / "payoffs.csv").open()))
    assert len(payoffs) == 6
    assert all(float(row["low"]) <= float(row["payoff"]) <= float(row["high"]) for row in payoffs)
    with Image.open(tmp_path / "payoffs.png") as picture:
        assert min(picture.size) > 200


# The command


def test_the_command(runs, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["tournament", str(runs / "one"), str(runs / "two"), str(model), "random", "--games", "10"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "mlbits/Blotto-v0: 60 games of 2 seats" in said.out
    (folder,) = (tmp_path / "tournaments").iterdir()
    assert folder.name.startswith("Blotto-v0-4-entries-")
    assert f"tournament: tournaments/{folder.name}" in said.out
    for name in ("one", "two", "model.zip", "random"):
        assert f" {name} " in said.out
    matches = (folder / MATCHES).read_bytes()
    (folder / MATCHES).write_bytes(matches[:-100])
    assert cli.main(words) == 0
    assert (folder / MATCHES).read_bytes() == matches
    assert capsys.readouterr().out == said.out
    assert cli.main(["tournament", "--table", str(folder / MATCHES), "--out", "again", "--json", "found.json"]) == 0
    assert capsys.readouterr().out.splitlines()[:-2] == said.out.splitlines()[:-2]
    for name in ("payoffs.csv", "payoffs.png", "standings.csv", "standings.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "found.json").read_text() == (folder / "standings.json").read_text()


def test_an_interruption_prints_how_to_continue(runs, tmp_path, monkeypatch, capsys):
    def interrupted(*words, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "play_episodes", interrupted)
    assert cli.main(["tournament", str(runs / "one"), "random", "--out", str(tmp_path / "out")]) == 130
    assert "the games played so far are kept, and the same command continues" in capsys.readouterr().err


def test_mistakes_get_one_line(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one = str(runs / "one")
    for words, message in (
        ([], "entries: got 0"), ([one, "random", "--games", "0"], "games: got 0"),
        ([one, "random", "--format", "league"], "league"), ([one, "--table", "x"], "table: cannot be used with"),
        (["--table", "x.jsonl"], "x.jsonl cannot be read"), ([one, "random", "--rond", "3"], "--rounds"),
    ):  # fmt: skip
        assert cli.main(["tournament", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_counts_games():
    class Once:
        device = "cpu"

        def row(self, name, call, steps, peer=None):
            return name, len(call().seating), steps

    ((name, played, counted),) = groups.GROUPS["tournament"](Once())
    assert played == counted == 2800
    assert len(name) <= 52, "the column of names is 52 wide"


def test_frozen_copies_can_enter(tmp_path):
    run = {"total_steps": 64, "num_envs": 8, "video": False, "pool": "latest", "pool_every": 64, "device": "cpu"}
    agent = {"num_steps": 8, "hidden": [4]}
    settings = resolve("ppo", BLOTTO, preset="none", env_settings=SMALL, run=run, agent_settings=agent)
    folder, _ = train(settings, tmp_path / "run", console=False)
    first, last = sorted((folder / "pool").iterdir())
    entries = open_entries([str(first), str(last), str(folder), "random"])
    assert (entries.env, entries.env_settings) == (BLOTTO, SMALL)
    assert list(entries.agents) == [first.name, last.name, "run", "random"]
    hashes = [content_hash(one) for one in entries.agents.values()]
    assert hashes[1] == hashes[2] != hashes[0]
    with pytest.raises(
        TournamentError, match=r"copy-0000-\w+\.safetensors was trained on mlbits/Blotto-v0, observation space"
    ):
        open_entries([str(first), "random"], MATRIX)
    last.write_bytes(b"nothing")
    with pytest.raises(MlbitsError, match=r"copy-0001-\w+\.safetensors: damaged"):
        open_entries([str(first), str(last)])
