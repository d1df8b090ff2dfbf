"""Lives in held-out levels: paired, tuned on other levels, and better for being taught."""

import dataclasses

import numpy as np
import pytest
import torch

from mlbits.agents.learned_rules.files import SavedRule, save_rule
from mlbits.agents.learned_rules.populations import Lesson, Outputs
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig
from mlbits.agents.learned_rules.teachers import Reinforce
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.levels.collect_objects import HELD_OUT
from mlbits.evals.reproductions.learned_rules import lpg
from mlbits.evals.reproductions.learned_rules.lives import (
    Suite,
    final_and_whole,
    lives,
    random_targets,
    tune,
)
from mlbits.evals.reproductions.learned_rules.paired import Interval

TINY = Suite("small", 4, copies=4, lifetime=20, tuning_levels=3, rates=(40.0, 80.0))


def saved(seed=0):
    return SavedRule(LPGRule(RuleConfig(hidden=4), seed=seed), 40.0, 0.5, {}, "digest")


def test_reinforce_sums_what_followed_in_the_episode():
    reward = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(4, 1, 1)
    ended = torch.tensor([False, True, False, False]).view(4, 1, 1)
    never = torch.zeros_like(ended)
    obs = torch.zeros(4, 1, 1, dtype=torch.int64)
    outputs = Outputs(torch.zeros(4, 1, 1, 2), torch.zeros(4, 1, 1, 3), torch.zeros(4, 1, 1, 3))
    for terminated, truncated in ((ended, never), (never, ended)):
        targets = Reinforce(0.5)(Lesson(obs, obs, obs, reward, terminated, truncated), outputs)
        assert targets.pi_hat.flatten().tolist() == [2.0, 2.0, 8.0, 8.0]
        assert targets.log_y_hat is outputs.log_y


def test_the_levels_that_are_lived_in_are_held_out_and_those_for_tuning_are_not():
    held_out, train = TINY.worlds("held-out"), TINY.worlds("train", repeats=2)
    assert held_out.level_numbers.tolist() == [HELD_OUT + k for k in range(4)]
    assert train.level_numbers.tolist() == [0, 1, 2, 0, 1, 2]
    assert held_out.lifetime_updates.tolist() == [20] * 4


def test_all_kinds_of_teachers_live_in_the_same_levels():
    tuned = {name: tune(TINY, name) for name in ("a2c", "reinforce")}
    assert len(tuned["a2c"].tried) == 16
    tried = {(one["rate"], one["discount"]) for one in tuned["reinforce"].tried}
    assert tried == {(40.0, 0.95), (80.0, 0.95), (40.0, 0.99), (80.0, 0.99)}
    for found in tuned.values():
        best = max(found.tried, key=lambda one: one["score"])
        assert {"rate": found.rate, **found.settings, "score": best["score"]} == best
    lived = lives(TINY, [saved(0), saved(5)], tuned)
    assert {name: len(found) for name, found in lived.items()} == {
        "rule": 2, "untrained rule": 2, "random rule": 1, "random play": 1, "a2c": 1, "reinforce": 1,
    }  # fmt: skip
    assert all(life.rewards.shape == (20, 4) for found in lived.values() for life in found)
    # A rule at its initial weights is the untrained rule of its seed; nothing is learned in random play.
    assert torch.equal(lived["rule"][0].rewards, lived["untrained rule"][0].rewards)
    assert not lived["random play"][0].state["table"].any()
    assert lived["a2c"][0].state["table"].any()
    # Until the first update all tabular agents are alike, and so is what they do.
    first = [found[0].rewards[0] for found in lived.values()]
    assert all(torch.equal(one, first[0]) for one in first)


def test_random_targets_are_drawn_anew_and_from_their_seed():
    obs = torch.zeros(5, 2, 3, dtype=torch.int64)
    lesson = Lesson(obs, obs, obs, torch.zeros(5, 2, 3), obs.bool(), obs.bool())
    outputs = Outputs(torch.zeros(5, 2, 3, 4), torch.zeros(5, 2, 3, 8), torch.zeros(5, 2, 3, 8))
    teach, same = random_targets(1), random_targets(1)
    one, other = teach(lesson, outputs), teach(lesson, outputs)
    assert not torch.equal(one.pi_hat, other.pi_hat)
    assert torch.equal(one.pi_hat, same(lesson, outputs).pi_hat)
    torch.testing.assert_close(one.log_y_hat.exp().sum(-1), torch.ones(5, 2, 3))


def test_the_end_of_a_life_is_its_last_tenth():
    rewards = torch.arange(20.0)[:, None] * torch.tensor([1.0, 2.0])
    final, whole = final_and_whole(rewards)
    assert final.tolist() == [18.5, 37.0]
    assert whole.tolist() == [9.5, 19.0]


def judged(**changed):
    good = Interval(0.01, 0.005, 0.02)
    result = {name: {"final": good, "whole": good} for name in lpg.BASELINES}
    result |= {"reward": {"a2c": {"final": 1.0}}, "auc_ratio": Interval(0.95, 0.9, 1.0)}
    return result | {name: {"final": interval, "whole": good} for name, interval in changed.items()}


@pytest.mark.parametrize(
    ("kind", "changed", "met"),
    [
        ("small", {}, True),
        ("small", {"a2c": Interval(0.001, -0.019, 0.02)}, True),
        ("small", {"a2c": Interval(0.001, -0.021, 0.02)}, False),
        ("small", {"a2c": Interval(-0.001, -0.01, 0.02)}, False),
        ("small", {"reinforce": Interval(0.01, -0.001, 0.02)}, False),
        ("medium", {"a2c": Interval(-0.1, -0.2, -0.05)}, True),
    ],
)
def test_targets_are_judged_as_stated(kind, changed, met):
    assert lpg._met(kind, judged(**changed), quick=False) is met


def test_other_kinds_have_to_keep_nine_tenths_of_the_area():
    assert not lpg._met("mazes", judged() | {"auc_ratio": Interval(0.89, 0.8, 1.0)}, quick=False)
    assert not lpg._met("small", judged() | {"random play": {"final": Interval(0.1, -0.1, 0.2)}}, quick=True)


def test_a_suite_is_compared_and_printed(capsys):
    suite = dataclasses.replace(TINY, rates=(40.0,), thorough=False)
    result, curves = lpg.compare(suite, [saved()])
    printed = capsys.readouterr().out
    assert "4 held-out levels" in printed
    assert "random play" in printed
    assert curves["rule"].shape == (4, 20)
    whole = curves["rule"].mean() - curves["a2c"].mean()
    assert result["a2c"]["whole"].value == pytest.approx(whole)
    assert result["auc_ratio"].value == pytest.approx(curves["rule"].mean() / curves["a2c"].mean())
    assert np.isfinite(result["above_a2c"].value)


def test_the_plots_are_drawn_within_levels(tmp_path):
    pytest.importorskip("matplotlib")
    from mlbits.evals.reproductions.learned_rules.plots import SHOWN, draw, within_levels

    rng = np.random.default_rng(0)
    level = 10 * rng.normal(size=(5, 1))
    curves = {name: level + k + 0.01 * rng.normal(size=(5, 60)) for k, name in enumerate(SHOWN)}
    shown = within_levels(curves)
    for name, curve in curves.items():
        assert shown[name].mean() == pytest.approx(curve.mean())
        assert shown[name].mean(1).std() < 0.02
    r2 = {name: rng.random((1, 5, 3)).tolist() for name in ("y", "td", "untrained y")}
    path = tmp_path / "plot.png"
    draw({"small": curves, "mazes": curves}, {"discounts": [0.5, 0.9, 0.99], "r2": r2}, path)
    assert path.stat().st_size > 10_000


def test_bad_arguments_are_refused_by_name(tmp_path):
    for arguments, message in [
        ({"levels": ("smal",)}, "levels: got 'smal'; wanted any of small, medium"),
        ({"cartpole_seeds": -1}, "cartpole_seeds: got -1; wanted 0 or more"),
        ({"rules": (tmp_path / "none.safetensors",)}, "is not there"),
    ]:
        with pytest.raises(MlbitsError, match=message):
            lpg.reproduce(quick=True, **arguments)
    path = tmp_path / "rule.safetensors"
    save_rule(path, LPGRule(RuleConfig(hidden=4, discount=0.9)), learning_rate=40.0, alpha=0.5, about={})
    with pytest.raises(MlbitsError, match=r"has discount 0.9; wanted 0.99"):
        lpg.reproduce(quick=True, rules=(path,))
