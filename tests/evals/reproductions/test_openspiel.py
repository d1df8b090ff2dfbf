"""The comparison with OpenSpiel: its recorded numbers on the same inputs, and the result of a difference."""

import importlib.metadata
import importlib.util
from functools import cache

import numpy as np
import pytest

from mlbits import cli
from mlbits.evals.reproductions import openspiel
from mlbits.evals.reproductions.openspiel import Case, cases

# What OpenSpiel 2.0.2 said: `mlbits reproduce openspiel --json FILE` where the extra `peers` is installed, "theirs".
THEIRS = [
    # NashConv of mixtures, 4 x 3 random payoffs
    [1.3870228709199481],
    # NashConv of mixtures, 2 x 3 x 2 random payoffs
    [0.5888076954470384],
    # NashConv of uniform play, blotto(coins=10,fields=3)
    [0.636363636363636],
    # NashConv of a policy, goofspiel(num_cards=3)
    [1.4292066164288386],
    # NashConv of a mixture, goofspiel(num_cards=3)
    [1.406622200844423],
    # NashConv of a policy, goofspiel(num_cards=4,imp_info=True,points_order=descending)
    [1.5243871252204584],
    # NashConv of a mixture, goofspiel(num_cards=4,imp_info=True,points_order=descending)
    [1.5229398148148148],
    # NashConv of a policy, goofspiel(num_cards=3,players=3,points_order=ascending)
    [0.8036827028791315],
    # NashConv of a policy, goofspiel(num_cards=4)
    [1.5387030565242368],
    # alpha-rank, one population of 4 strategies, alpha 2
    [0.12078702528482978, 0.7228650797540523, 0.15629895025997498, 4.894470114296673e-05],
    # alpha-rank, 3 x 2 profiles, alpha 2
    [
        0.7576128683444667,
        1.7144097926494893e-05,
        1.477943203870282e-14,
        4.6656255593073035e-05,
        0.24230411291423748,
        1.9218387761536803e-05,
    ],
    # alpha-rank, 3 x 2 profiles, alpha infinite
    [
        0.6470274284583025,
        0.003300986896392394,
        0.0033333333333333383,
        0.3299999999999601,
        0.012972571541737896,
        0.0033656797702739456,
    ],
    # Elo of 5 players, wins and draws
    [19.10959186886231, 62.83580293031753, 223.74834755936052, 122.27712927054415, 0.0],
]


@cache
def ours():
    return [case.ours.tolist() for case in cases()]


@pytest.mark.parametrize("number", range(len(THEIRS)))
def test_numbers_equal_openspiels(number):
    assert len(ours()) == len(THEIRS)
    assert ours()[number] == pytest.approx(THEIRS[number], abs=1e-8)


def test_without_openspiel_the_command_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["reproduce", "openspiel"]) == 2
    assert "OpenSpiel is not installed; wanted pip install" in capsys.readouterr().err


def test_a_difference_misses_the_target(monkeypatch, capsys):
    """With another library in OpenSpiel's place."""
    two = np.array([1.0, 2.0])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0")
    monkeypatch.setattr(openspiel, "cases", lambda quick: [Case("alike", two, lambda: two + 1e-10)])
    assert openspiel.reproduce()["met"]
    monkeypatch.setattr(
        openspiel,
        "cases",
        lambda quick: [Case("alike", two, lambda: two), Case("not", two, lambda: two + np.array([0, 1e-3]))],
    )
    found = openspiel.reproduce()
    assert not found["met"]
    assert [round(row["difference"], 6) for row in found["rows"]] == [0, 1e-3]
    assert "alike" in capsys.readouterr().out


def test_the_quick_form_leaves_games_out():
    assert 5 < len(cases(quick=True)) < len(cases())
