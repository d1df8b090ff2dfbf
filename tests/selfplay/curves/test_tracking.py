"""Logs of a run, read back by TensorBoard's own reader and by Pillow."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

from mlbits.selfplay.curves.tracking import TIMES, Progress, Tracker, encode_gif, tensorboard_tag
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def scalars(events, name):
    return [(event.step, event.value) for event in events.Scalars(name)]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def frames(count, height=16, width=24):
    images = np.zeros((count, height, width, 3), np.uint8)
    for k in range(count):
        images[k, :, 2 * k : 2 * k + 4] = (250, 20 * k, 0)
    return list(images)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = resolve(
        "ppo", "mlbits/GridWorld-v0", preset="none", agent_settings={"num_steps": 16, "hidden": [8]},
        run={"total_steps": 512, "num_envs": 8, "eval_every": 256, "eval_episodes": 2},
        env_settings={"map": "S.G", "horizon": 6},
    )  # fmt: skip
    folder, _ = train(settings, tmp_path_factory.mktemp("runs") / "run", console=False)
    return folder, read(folder), settings


def test_scalars_have_the_promised_names_and_steps(run):
    _, events, _ = run
    tags = set(events.Tags()["scalars"])
    assert {"return/train", "return/eval", "return/eval_low", "return/eval_high"} < tags
    assert {"return/train_length", "return/eval_length", "speed/steps_per_second"} < tags
    assert {f"time/{part}" for part in ("environment", "network", "learning", "evaluation", "rest")} < tags
    assert {"train/policy_loss", "train/value_loss", "train/entropy", "train/approx_kl"} < tags
    assert [step for step, _ in scalars(events, "train/entropy")] == [128, 256, 384, 512]
    assert [step for step, _ in scalars(events, "return/eval")] == [256, 512]


def test_tensorboard_and_metrics_agree(run):
    folder, events, _ = run
    names = {name for row in rows_of(folder) for name in row} - {"env_steps"}
    assert {tensorboard_tag(name) for name in names} == set(events.Tags()["scalars"])
    for name in names:
        rows = [(row["env_steps"], row[name]) for row in rows_of(folder) if name in row]
        seen = scalars(events, tensorboard_tag(name))
        assert [step for step, _ in seen] == [step for step, _ in rows], name
        assert np.allclose([value for _, value in seen], [value for _, value in rows], rtol=1e-6), name


def test_the_settings_are_logged_as_text(run):
    _, events, settings = run
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.removeprefix("```json\n").removesuffix("\n```")) == json.loads(
        json.dumps(settings.to_json())
    )


def test_hyperparameters_are_those_of_the_run(run):
    _, events, _ = run
    meta = events.summary_metadata["_hparams_/session_start_info"]
    data = plugin_data_pb2.HParamsPluginData.FromString(meta.plugin_data.content)
    given = dict(data.session_start_info.hparams)
    assert given["agent.num_steps"].number_value == 16
    assert given["agent.hidden"].string_value == "(8,)"
    assert given["run.num_envs"].number_value == 8
    assert given["agent"].string_value == "ppo"
    assert given["env"].string_value == "mlbits/GridWorld-v0"
    assert given["env.map"].string_value == "S.G"
    experiment = events.summary_metadata["_hparams_/experiment"]
    infos = plugin_data_pb2.HParamsPluginData.FromString(experiment.plugin_data.content).experiment.metric_infos
    assert [info.name.tag for info in infos] == ["return/eval"]


def layout_of(events):
    data = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    return [(category.title, list(category.chart)) for category in layout_pb2.Layout.FromString(data).category]


def drawn_by_tensorboard(folder, chart):
    """The curves of a chart, from TensorBoard's own plugin, as its page requests them (a margin by escaped names)."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    plugins = {}
    context = base_plugin.TBContext(
        logdir=str(folder), multiplexer=multiplexer, data_provider=provider, plugin_name_to_instance=plugins
    )
    plugins["scalars"] = ScalarsPlugin(context)
    margins = [[series.value, series.lower, series.upper] for series in chart.margin.series]
    wanted = list(chart.multiline.tag) + [re.escape(tag) for margin in margins for tag in margin]
    expression = wanted[0] if len(wanted) == 1 else "|".join(f"({part})" for part in wanted)
    answer = CustomScalarsPlugin(context).scalars_impl(RequestContext(), ".", expression, "")
    assert answer["regex_valid"]
    found = set(answer["tag_to_events"])
    return found & {tag for margin in margins for tag in margin} if margins else found


def test_each_chart_of_the_layout_draws_its_curves_and_no_others(run):
    folder, events, _ = run
    layout = layout_of(events)
    assert [title for title, _ in layout] == ["Return", "Speed"]
    drawn = {chart.title: drawn_by_tensorboard(folder, chart) for _, charts in layout for chart in charts}
    assert drawn == {
        "return": {"return/train", "return/eval"},
        "evaluation, 95% interval": {"return/eval", "return/eval_low", "return/eval_high"},
        "episode length": {"return/train_length", "return/eval_length"},
        "steps per second": {"speed/steps_per_second"},
        "where the time goes": {f"time/{part}" for part in TIMES},
    }
    assert layout[0][1][0].title == "return"
    (margin,) = [chart.margin for _, charts in layout for chart in charts if chart.margin.series]
    ends = margin.series[0]
    assert (ends.value, ends.lower, ends.upper) == ("return/eval", "return/eval_low", "return/eval_high")
    steps = {tuple(step for step, _ in scalars(events, tag)) for tag in (ends.value, ends.lower, ends.upper)}
    assert steps == {(256, 512)}  # TensorBoard draws no margin whose ends are of other steps


def test_tensorboard_shows_returns_first_and_pictures_last(run):
    _, events, _ = run
    tags = events.Tags()
    groups = sorted({tag.split("/")[0] for tag in (*tags["scalars"], *tags["images"])})
    assert groups[0] == "return"
    assert groups[-1] == "view"
    assert {tag.split("/")[0] for tag in tags["images"]} == {"view"}
    games = ("exploitability/agent", "pool/size", "rating/elo", "learn/loss", "an own measure", "Mine/x", "custom/x")
    assert all(tensorboard_tag(name) > "return/~" for name in games)
    assert [tensorboard_tag(name) for name in games] == [
        "selfplay/exploitability_agent", "selfplay/pool_size", "selfplay/elo", "train/loss", "run/an own measure",
        "run/Mine_x", "run/custom_x",
    ]  # fmt: skip
    assert tensorboard_tag("speed/steps_per_second") == "speed/steps_per_second"
    assert tensorboard_tag("policy/learned", picture=True) == "view/policy_learned"


def test_evaluations_leave_an_animation(run):
    _, events, _ = run
    images = events.Images("view/episode")
    assert [image.step for image in images] == [256, 512]
    with Image.open(io.BytesIO(images[0].encoded_image_string)) as gif:
        assert gif.format == "GIF"
        assert 2 <= gif.n_frames <= 6
        assert gif.size == (images[0].width, images[0].height)


def test_a_gif_shows_its_frames_one_after_another():
    wanted = frames(5)
    with Image.open(io.BytesIO(encode_gif(wanted, frames_per_second=10))) as gif:
        assert gif.n_frames == 5
        assert gif.info["duration"] == 100
        assert gif.info["loop"] == 0
        for k, frame in enumerate(wanted):
            gif.seek(k)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() <= 4


def test_one_frame_is_an_image_and_none_is_nothing(tmp_path):
    tracker = Tracker(tmp_path, 100, console=False)
    tracker.picture(10, [])
    tracker.picture(20, frames(1))
    tracker.close()
    (image,) = read(tmp_path).Images("view/episode")
    assert image.step == 20
    with Image.open(io.BytesIO(image.encoded_image_string)) as picture:
        assert picture.format == "PNG"


def test_nan_is_left_out(tmp_path):
    tracker = Tracker(tmp_path, 100, console=False)
    tracker.record(10, {"a": float("nan"), "x": 2, "b": float("inf")})
    tracker.close()
    assert rows_of(tmp_path) == [{"env_steps": 10, "x": 2.0}]
    assert read(tmp_path).Tags()["scalars"] == ["x"]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    tracker = Tracker(tmp_path, 100, console=False)
    for step in (10, 20, 30, 40):
        tracker.record(step, {"x": step})
    tracker.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 15, "x"')  # killed in the middle of a line
    again = Tracker(tmp_path, 100, resumed_at=20, console=False)
    assert [row["env_steps"] for row in rows_of(tmp_path)] == [10, 20]
    for step in (30, 50):
        again.record(step, {"x": step + 0.5})
    again.close()
    assert rows_of(tmp_path)[2:] == [{"env_steps": 30, "x": 30.5}, {"env_steps": 50, "x": 50.5}]
    assert scalars(read(tmp_path), "x") == [(10, 10), (20, 20), (30, 30.5), (50, 50.5)]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_run_resumed_from_its_start_drops_everything(tmp_path):
    tracker = Tracker(tmp_path, 100, console=False)
    tracker.record(10, {"x": 1})
    tracker.close()
    again = Tracker(tmp_path, 100, resumed_at=0, console=False)
    again.record(20, {"x": 2})
    again.close()
    assert [row["env_steps"] for row in rows_of(tmp_path)] == [20]
    assert scalars(read(tmp_path), "x") == [(20, 2)]


def test_everything_is_on_disk_after_a_flush(tmp_path):
    tracker = Tracker(tmp_path, 100, console=False)
    tracker.record(10, {"x": 1})
    tracker.flush()
    assert len(rows_of(tmp_path)) == 1
    assert scalars(read(tmp_path), "x") == [(10, 1)]
    tracker.close()


def test_without_a_terminal_progress_is_plain_lines(capsys):
    progress = Progress(1000)
    speed = {"speed/steps_per_second": 250.0, "time/learning": 0.6, "time/rest": 0.4}
    progress.show(500, speed | {"return/train": 1.5, "return/eval": 2.5})
    progress.show(510, speed)  # too soon for another line
    progress.show(1000, speed | {"return/train": 3.5})
    progress.close()
    first, last = capsys.readouterr().out.splitlines()
    for part in ("500/1,000 steps (50%)", "250 steps/s", "return 1.5", "eval 2.5", "learning 60%"):
        assert part in first
    assert "1,000/1,000 steps (100%)" in last
    assert "return 3.5" in last
    assert "\x1b" not in first + last


def test_messages_are_printed_verbatim_and_once_if_asked_for(tmp_path, capsys):
    tracker = Tracker(tmp_path, 100)
    tracker.say("install gymnasium[classic-control]", once=True)
    tracker.say("install gymnasium[classic-control]", once=True)
    tracker.say("twice")
    tracker.say("twice")
    tracker.close()
    assert capsys.readouterr().out.splitlines() == ["install gymnasium[classic-control]", "twice", "twice"]
