"""Measurements during multi-agent training: exploitability, Elo against the pool, win rates."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlbits import cli
from mlbits.agents.agent import content_hash
from mlbits.evals.evaluate import load_agent
from mlbits.evals.exploitability.agent_exploitability import exact_exploitability
from mlbits.evals.training_probes import during_training
from mlbits.selfplay.curves.tracking import tensorboard_tag
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.saved_agents import read_copy
from mlbits.selfplay.session import open_session

ENV = "mlbits/MatrixGame-v0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = "--total-steps 3000 --num-envs 64 --eval-every 1000 --pool uniform --pool-every 1000 --device cpu --quiet"
    assert cli.main(["train", "ppo", ENV, *words.split(), "--out", str(folder)]) == 0
    return folder


def test_the_curves_are_in_tensorboard_with_the_right_values(run):
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    agent, _, state = load_agent(run)
    names = ("exploitability/agent", "exploitability/pool", "rating/elo")
    last = {name: events.Scalars(tensorboard_tag(name))[-1] for name in names}
    assert {event.step for event in last.values()} == {state["env_steps"]}
    assert last["exploitability/agent"].value == pytest.approx(exact_exploitability(agent, ENV), abs=1e-6)
    copies = [(read_copy(file, ENV), 1.0) for file in sorted((run / "pool").iterdir())]
    assert last["exploitability/pool"].value == pytest.approx(exact_exploitability(copies, ENV), abs=1e-6)
    assert len(events.Images("view/pool_payoffs")) == len(events.Scalars("return/eval")) >= 3
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["rating/elo"] for record in records if "rating/elo" in record]


def session_of(env=ENV, **run):
    settings = {"num_envs": 16, "device": "cpu", "pool_every": 1} | run
    return open_session(
        resolve("ppo", env, preset="none", run=settings, agent_settings={"num_steps": 4, "hidden": [8]})
    )


def test_elo_comes_from_the_games_relative_to_the_first_copy():
    session = session_of(pool="latest")
    payoffs, first = session.opponents.payoffs, session.opponents.copies[0].number
    payoffs.wins[0, first], payoffs.wins[first, 0] = 100, 10
    found = during_training(session).scalars["rating/elo"]
    assert found == pytest.approx(400 * np.log10(10), abs=25)  # a little less, by the prior
    payoffs.wins[0, first], payoffs.wins[first, 0] = 10, 100
    assert during_training(session).scalars["rating/elo"] == pytest.approx(-found)


def test_measuring_changes_nothing():
    session = session_of(pool="pfsp", opponents=("random",), opponent_fraction=0.25)
    session.collect()
    before = (
        content_hash(session.learner), session.collector.generator.get_state().tolist(),
        session.opponents.state(), session.batch.state().tolist(),
    )  # fmt: skip
    assert during_training(session).scalars.keys() == {
        "exploitability/agent",
        "exploitability/pool",
    }  # no games yet
    after = (
        content_hash(session.learner), session.collector.generator.get_state().tolist(),
        session.opponents.state(), session.batch.state().tolist(),
    )  # fmt: skip
    assert before == after


def test_large_games_have_no_exact_value_and_one_seat_no_measures():
    assert not during_training(session_of("mlbits/GridWorld-v0")).scalars
    assert not during_training(session_of("mlbits/SimilarityPD-v0")).scalars
    assert during_training(session_of()).scalars.keys() == {"exploitability/agent"}


def test_a_learner_that_never_met_the_pool_has_no_elo():
    session = session_of(pool="uniform")
    opponents = session.opponents
    opponents.freeze(0, 0)
    for table in (opponents.payoffs.wins, opponents.payoffs.draws):
        table[:] = 0
    first, second = (copy.number for copy in opponents.copies[:2])
    opponents.payoffs.wins[first, second] = opponents.payoffs.wins[second, first] = (
        5  # the copies met, the learner none
    )
    found = during_training(session)
    assert "rating/elo" not in found.scalars
    assert found.scalars["rating/groups"] == len(opponents.payoffs) - 1
    opponents.payoffs.wins[0, first] = 3
    again = during_training(session)
    assert again.scalars["rating/groups"] == len(opponents.payoffs) - 2
    assert again.scalars["rating/elo"] > 0
    assert (
        found.pictures["pool/payoffs"].shape != again.pictures["pool/payoffs"].shape
        or (found.pictures["pool/payoffs"] != again.pictures["pool/payoffs"]).any()
    )
