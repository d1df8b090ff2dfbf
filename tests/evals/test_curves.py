"""Curves of several seeds: means and intervals by hand, what a figure shows, and what is refused."""

import sys

import numpy as np
import pytest
from PIL import Image

from mlbits.envs.core.errors import UnknownIdError
from mlbits.evals.curves import PlotError, band, chosen_tags, last_values, plot, write_figure
from mlbits.evals.recorded_runs import RecordedRunError, grouped, read_runs
from tests.evals.recorded import write_run

TAG = "return/eval"


def group_of(folder, **curves):
    """One group of runs, named by their curves; their seeds count up."""
    for seed, (name, curve) in enumerate(curves.items()):
        write_run(folder / name, curve if isinstance(next(iter(curve)), str) else {TAG: curve}, seed=seed)
    (group,) = grouped(read_runs([folder]))
    return group


def test_the_band_is_the_mean_and_students_interval(tmp_path):
    found = band(group_of(tmp_path, a={100: 1.0, 200: 5.0}, b={100: 2.0, 200: 5.0}, c={100: 3.0, 200: 5.0}), TAG)
    assert found.x.tolist() == [100, 200]
    assert found.mean.tolist() == [2.0, 5.0]
    half = 4.302652729749464 / np.sqrt(3)  # Student's quantile for two degrees of freedom
    assert found.low[0] == pytest.approx(2 - half)
    assert found.high[0] == pytest.approx(2 + half)
    assert np.isnan([found.low[1], found.high[1]]).all()  # equal numbers say nothing about the spread


def test_other_steps_are_interpolated_where_all_runs_have_been(tmp_path):
    found = band(group_of(tmp_path, a={100: 0.0, 300: 2.0, 500: 9.0}, b={200: 1.0, 300: 3.0}), TAG)
    assert found.x.tolist() == [200, 300]
    assert found.mean.tolist() == [1.0, 2.5]


def test_many_different_steps_are_thinned(tmp_path):
    one, other = ({k: float(k) for k in range(start, 2000, 3)} for start in (0, 1))
    found = band(group_of(tmp_path, a=one, b=other), TAG)
    assert len(found.x) == 500
    np.testing.assert_allclose(found.mean, found.x)


def test_runs_that_share_no_step_have_no_mean(tmp_path):
    group = group_of(tmp_path, a={100: 0.0, 200: 1.0}, b={300: 0.0, 400: 1.0})
    assert len(band(group, TAG).x) == 0
    assert last_values([group]) == [f"ppo on mlbits/CartPole-v0: {TAG} has no step that all 2 seeds have been at"]
    thin = [line for line in plot([tmp_path]).axes[0].lines if line.get_linewidth() < 1]
    assert [line.get_xdata().tolist() for line in thin] == [[100, 200], [300, 400]]


def test_a_single_run_has_the_interval_of_its_episodes(tmp_path):
    curves = {TAG: {1: 5.0, 2: 6.0}, f"{TAG}_low": {1: 4.0, 2: 5.5}, f"{TAG}_high": {1: 6.0, 2: 6.5}}
    found = band(group_of(tmp_path, a=curves), TAG)
    assert (found.low.tolist(), found.high.tolist(), found.runs) == ([4.0, 5.5], [6.0, 6.5], 1)
    (line,) = last_values(grouped(read_runs([tmp_path])))
    assert line == f"ppo on mlbits/CartPole-v0: {TAG} 6, 95% interval 5.5 to 6.5 at 2 steps"


def test_a_running_mean_is_over_the_latest_records(tmp_path):
    group = group_of(tmp_path, a={1: 0.0, 2: 6.0, 3: 3.0, 4: 9.0})
    assert band(group, TAG, smooth=3).mean.tolist() == [0.0, 3.0, 3.0, 6.0]
    assert band(group, TAG).mean.tolist() == [0.0, 6.0, 3.0, 9.0]


def test_times_lie_between_those_recorded(tmp_path):
    clock = {"speed/cpu_seconds": {100: 10.0, 200: 30.0}, "speed/wall_seconds": {100: 5.0, 200: 9.0}}
    group = group_of(tmp_path, a={TAG: {100: 1.0, 150: 2.0, 200: 3.0}, **clock})
    assert band(group, TAG, x="cpu").x.tolist() == [10.0, 20.0, 30.0]
    assert band(group, TAG, x="wall").x.tolist() == [5.0, 7.0, 9.0]


def test_runs_without_times_have_no_axis_of_time(tmp_path):
    group_of(tmp_path, a={100: 1.0, 200: 2.0})
    with pytest.raises(RecordedRunError, match=r"a: its records have no cpu time.*wanted x 'steps'"):
        plot([tmp_path], x="cpu")


def test_the_figure_shows_each_group_once(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", {TAG: {100: 1.0, 200: 2.0 + seed}}, seed=seed)
    write_run(tmp_path / "q", {TAG: {100: 0.0, 250: 9.0}, "learn/loss": {100: 1.0}}, agent="dqn")
    write_run(tmp_path / "g", {TAG: {100: 0.0, 250: 1.0}}, env="mlbits/GridWorld-v0", env_settings={"slip": 0.5})
    figure = plot([tmp_path])
    assert [panel.get_title() for panel in figure.axes] == ["mlbits/CartPole-v0", "mlbits/GridWorld-v0"]
    assert {panel.get_ylabel() for panel in figure.axes} == {"mean return of evaluation episodes"}
    assert {panel.get_xlabel() for panel in figure.axes} == {"environment steps"}
    lines = {tuple(line.get_ydata()) for line in figure.axes[0].lines}
    assert {(1.0, 2.5), (0.0, 9.0), (475.0, 475.0)} == lines  # means, and where CartPole counts as solved
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["ppo (2 seeds, mean and 95% interval)", "dqn", "ppo", "solved: 475"]


def test_limits_are_those_of_the_values(tmp_path):
    """Not those of the interval of two seeds, which is wider than anything that was seen."""
    group_of(tmp_path, a={100: 0.0, 200: 0.0}, b={100: 500.0, 200: 400.0})
    low, high = plot([tmp_path]).axes[0].get_ylim()
    assert -100 < low < 0
    assert 500 < high < 600


def test_runs_that_went_further_go_on_as_thin_lines(tmp_path):
    group_of(tmp_path, a={100: 0.0, 200: 1.0, 300: 4.0}, b={100: 0.0, 200: 3.0})
    lines = plot([tmp_path]).axes[0].lines
    assert [line.get_ydata().tolist() for line in lines if line.get_linewidth() < 1] == [[1.0, 4.0]]
    assert [line.get_ydata().tolist() for line in lines if line.get_linewidth() > 1] == [[0.0, 2.0]]


def test_the_returns_are_drawn_by_default(tmp_path):
    runs = {
        "evaluated": {TAG: {1: 0.0, 2: 0.0}, "return/train": {1: 0.0}},
        "once": {TAG: {1: 0.0}, "return/train": {1: 0.0, 2: 0.0}},
        "seldom": {TAG: {1: 0.0}, "learn/a": {1: 0.0, 2: 0.0}},
        "offline": {"learn/b": {1: 0.0}, "learn/a": {1: 0.0}},
    }
    wanted = {"evaluated": TAG, "once": "return/train", "seldom": TAG, "offline": "learn/a"}
    for name, curves in runs.items():
        assert chosen_tags(grouped(read_runs([write_run(tmp_path / name, curves)]))) == [wanted[name]]


def test_an_unknown_curve_is_refused_with_the_nearest(tmp_path):
    group_of(tmp_path, a={TAG: {1: 0.0}, "learn/entropy": {1: 0.0}})
    with pytest.raises(UnknownIdError, match="tag: unknown curve 'entropi'; did you mean 'learn/entropy'"):
        plot([tmp_path], "entropi")
    with pytest.raises(PlotError, match="smooth: got 0"):
        plot([tmp_path], smooth=0)


def test_a_run_without_records_is_refused(tmp_path):
    with pytest.raises(RecordedRunError, match="nothing is recorded yet"):
        plot([write_run(tmp_path / "run", {})])


def test_a_dataset_has_gradient_steps(tmp_path):
    folder = write_run(tmp_path / "run", {"learn/loss": {1: 0.0, 2: 1.0}}, agent="bc", data="some/data-v0")
    assert plot([folder]).axes[0].get_xlabel() == "gradient steps"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_pictures_are_written(tmp_path, suffix):
    group_of(tmp_path, a={1: 0.0, 2: 1.0})
    write_figure(plot([tmp_path]), tmp_path / f"out{suffix}")
    data = (tmp_path / f"out{suffix}").read_bytes()
    assert {".png": b"PNG", ".svg": b"<svg", ".pdf": b"%PDF"}[suffix] in data
    if suffix == ".png":
        assert Image.open(tmp_path / "out.png").size == (1050, 645)


def test_a_notebook_gets_a_png(tmp_path):
    group_of(tmp_path, a={1: 0.0, 2: 1.0})
    assert plot([tmp_path])._repr_png_().startswith(b"\x89PNG")


def test_what_cannot_be_written_is_refused(tmp_path):
    group_of(tmp_path, a={1: 0.0, 2: 1.0})
    figure = plot([tmp_path])
    with pytest.raises(PlotError, match=r"out: got .*\.jpg; wanted a file that ends in \.png, \.svg or \.pdf"):
        write_figure(figure, tmp_path / "a.jpg")
    with pytest.raises(PlotError, match="cannot be written"):
        write_figure(figure, tmp_path / "missing" / "a.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    group_of(tmp_path, a={1: 0.0, 2: 1.0})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotError, match=r'matplotlib is not installed; wanted pip install "mlbits\[plot\]"'):
        plot([tmp_path])
