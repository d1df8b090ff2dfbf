"""``mlbits reproduce drq``: its arms, and what counts as met."""

import pytest

from mlbits.envs.core.errors import GameError
from mlbits.evals.reproductions.representation import drq
from mlbits.selfplay.runs.flags import parse_train


def test_arms_differ_in_their_shifts_alone():
    found = {arm: parse_train(["sac", drq.ENV, *drq.flags_of(arm, 2000)])[0] for arm in drq.ARMS}
    shifts = {
        arm: (one.agent_config.shift, one.agent_config.target_shifts, one.agent_config.critic_shifts)
        for arm, one in found.items()
    }
    assert shifts == {"none": (0, 1, 1), "[1, 1]": (2, 1, 1), "[2, 2]": (2, 2, 2)}
    assert len({str(one.run) for one in found.values()}) == 1
    assert found["none"].env_settings == {"observation": "pixels", "size": 32, "frame_stack": 2}


@pytest.mark.parametrize(
    ("quick", "shifted", "met"),
    [
        (True, [-200.0], True), (True, [-1300.0], False),
        (False, [-200.0, -220.0, -240.0], True), (False, [-200.0, -1290.0, -1250.0], False),
    ],
)  # fmt: skip
def test_met_is_about_the_difference_over_the_same_seeds(monkeypatch, quick, shifted, met):
    def train(agent, env, seed, *flags):
        return {
            "return_mean": shifted[seed] if "--agent.target-shifts" in flags else -1200.0 - seed,
            "cpu_seconds": 2.0,
        }

    monkeypatch.setattr(drq, "train_in_process", train)
    result = drq.reproduce(quick=quick, seeds=3)
    assert result["met"] is met
    assert [row["arm"] for row in result["rows"]] == (["none", "[2, 2]"] if quick else list(drq.ARMS))
    assert result["difference"][0] == pytest.approx(sum(shifted) / len(shifted) + 1200 + (0 if quick else 1))


def test_one_seed_is_too_few_for_an_interval():
    with pytest.raises(GameError, match="seeds: got 1; wanted an integer from 2"):
        drq.reproduce(seeds=1)
