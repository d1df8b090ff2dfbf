"""Logging of a run: TensorBoard, ``metrics.jsonl``, and a line on the terminal.

Names are stable; in ``metrics.jsonl`` they are:

| name | meaning |
|---|---|
| return/train, return/eval | mean return of the latest training episodes; of an evaluation |
| return/train_length, return/eval_length | mean length of those episodes, in steps |
| return/eval_low, return/eval_high | 95% interval of the evaluation's mean; the mean itself if all returns are equal |
| learn/* | what the agent reports (losses, entropy, KL, ...) |
| speed/steps_per_second | environment steps a wall second since the last record, evaluation left out |
| speed/wall_seconds, speed/cpu_seconds | wall and CPU time of the run so far, in all its processes, imports included |
| time/environment, network, learning, evaluation, rest | fractions of the wall time |

In TensorBoard the x axis is environment steps. TensorBoard sorts its sections by the names before the slash; so that
the returns come first, names that would be sorted before ``return`` are changed there, and pictures come last (see
:func:`tensorboard_tag`). The custom layout starts with the returns too, with the evaluations' interval as a band.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.plain_json import read_json
from mlbits.selfplay.curves.events import EventWriter
from mlbits.selfplay.curves.experiment_trackers import Tracked
from mlbits.selfplay.curves.progress import TIMES, Progress
from mlbits.selfplay.runs.checkpoints import sync_file, sync_folder, write_file


class CurvesError(MlbitsError, RuntimeError):
    """Curves that cannot be written."""


def _exactly(*tags: str) -> list[Any]:
    """A chart of exactly these tags: TensorBoard takes each for a regular expression that matches a tag's beginning."""
    return ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]


# A margin chart takes the tags of its value, lower and upper end as names, not as regular expressions.
LAYOUT = {
    "Return": {
        "return": _exactly("return/train", "return/eval"),
        "evaluation, 95% interval": ["Margin", ["return/eval", "return/eval_low", "return/eval_high"]],
        "episode length": _exactly("return/train_length", "return/eval_length"),
    },
    "Speed": {
        "steps per second": _exactly("speed/steps_per_second"),
        "where the time goes": _exactly(*(f"time/{part}" for part in TIMES)),
    },
}
_GROUPS = {"learn": "train/", "exploitability": "selfplay/exploitability_", "pool": "selfplay/pool_",
           "rating": "selfplay/"}  # fmt: skip
_FIRST, _OTHERS, _PICTURES = "return", "run/", "view/"


def tensorboard_tag(name: str, picture: bool = False) -> str:
    """The name of a curve or picture in TensorBoard: unchanged, or changed so that it is sorted after the returns.

    | name | in TensorBoard |
    |---|---|
    | learn/x | train/x |
    | exploitability/x, pool/x, rating/x | selfplay/exploitability_x, selfplay/pool_x, selfplay/x |
    | others that would be sorted before return | run/..., slashes as underscores |
    | pictures | view/..., slashes as underscores |
    """
    if picture:
        return _PICTURES + name.replace("/", "_")
    group, _, rest = name.partition("/")
    if group in _GROUPS:
        return _GROUPS[group] + rest
    return name if group.lower() >= _FIRST else _OTHERS + name.replace("/", "_")


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The settings of a run's config.json by name, as in "agent.discount"; what is no number or text as text."""
    flat = {}
    for group in ("run", "agent_config", "env_settings"):
        for name, value in config.get(group, {}).items():
            flat[f"{group.removesuffix('_config').removesuffix('_settings')}.{name}"] = value
    flat |= {"agent": config["agent"], "env": config["env"]}
    return {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in flat.items()}


# Formats of animations by the suffix of the file name.
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}


class Tracker:
    """Writes a run's records.

    Args:
        folder: the run's folder.
        total_steps: environment steps at which the run ends.
        resumed_at: environment steps of the checkpoint that the run is resumed from, or None for a new run; later
            records of the interrupted run are dropped.
        console: whether to show progress.
        on_closed_pipe: called when the output has no reader any more; nothing is shown after that.
        track: "wandb" or "mlflow" to record settings and scalars there too; see
            :mod:`~mlbits.selfplay.curves.experiment_trackers`.

    Raises:
        CurvesError: if the disk does not take the files.
    """

    def __init__(
        self, folder: Path, total_steps: int, resumed_at: int | None = None, console: bool = True,
        on_closed_pipe: Callable[[], None] = lambda: None, track: str = "none",
    ) -> None:  # fmt: skip
        self._metrics = folder / "metrics.jsonl"
        if resumed_at is not None:
            _drop_after(self._metrics, resumed_at)
        with self._writing():
            self.writer = EventWriter(folder, None if resumed_at is None else resumed_at + 1)
            if resumed_at is None:
                self.writer.add_custom_scalars(LAYOUT)
            self._file = self._metrics.open("a", buffering=1)
        self._said: set[str] = set()
        self._progress = Progress(total_steps) if console else None
        self._on_closed_pipe = on_closed_pipe
        resumed = resumed_at is not None
        self._tracked = None if track == "none" else Tracked(track, folder, resumed, self.say)

    def describe(self, config: Mapping[str, Any]) -> None:
        """Write the settings as text and as hyperparameters.

        Raises:
            CurvesError: if the disk does not take them.
        """
        plain = hyperparameters(config)
        if self._tracked is not None:
            self._tracked.settings(plain)
        writer: Any = self.writer.file_writer
        with self._writing():
            self.writer.add_text("config", f"```json\n{json.dumps(config, indent=2, default=str)}\n```", 0)
            for summary in hparams(plain, {"return/eval": 0.0}):
                writer.add_summary(summary)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = self._metrics.parent
            raise CurvesError(
                f"{folder}: the curves cannot be written ({error}); earlier checkpoints are unharmed"
            ) from None

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars at a number of environment steps; NaN ("no value") and infinity are left out.

        Raises:
            CurvesError: if the disk does not take them.
        """
        values = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        with self._writing():
            for name, value in values.items():
                self.writer.add_scalar(tensorboard_tag(name), value, step)
            self._file.write(json.dumps({"env_steps": step, **values}) + "\n")
        if self._tracked is not None and values:
            self._tracked.scalars(step, {tensorboard_tag(name): value for name, value in values.items()})
        with self._showing() as progress:
            if progress is not None:
                progress.show(step, values)

    @contextlib.contextmanager
    def _showing(self) -> Iterator[Progress | None]:
        """The progress line, until the output has no reader."""
        try:
            yield self._progress
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe without a reader, a terminal that is gone
                raise
            self._progress = None
            self._on_closed_pipe()

    def stopped(self, error: Exception) -> None:
        """Log the error that ended the run, as text, if the disk takes it."""
        with contextlib.suppress(OSError):
            self.writer.add_text("stopped", str(error), 0)

    def picture(
        self, step: int, frames: list[NDArray[np.uint8]], frames_per_second: int = 8, name: str = "episode"
    ) -> None:
        """Log the frames of an episode as an animation (a single frame as an image)."""
        if not frames:
            return
        name = tensorboard_tag(name, picture=True)
        with self._writing():
            if len(frames) == 1:
                self.writer.add_image(name, frames[0], step, dataformats="HWC")
            else:
                _add_animation(self.writer, name, frames, step, frames_per_second)

    def say(self, text: str, once: bool = False) -> None:
        """Print a line above the progress line; with ``once``, not the same line twice."""
        if once and text in self._said:
            return
        self._said.add(text)
        with self._showing() as progress:
            if progress is not None:
                progress.say(text)

    def flush(self) -> None:
        """Make everything durable, before a checkpoint counts on it.

        Raises:
            CurvesError: if the disk does not take it.
        """
        with self._writing():
            self.writer.flush()
            self._file.flush()
            for path in (self._metrics, self.writer.path):
                sync_file(path)
            sync_folder(self._metrics.parent)

    def close(self) -> None:
        """Finish the files and the progress line; what a full disk does not take was not flushed, and is left out."""
        for file in (self.writer, self._file):
            with contextlib.suppress(OSError):
                file.close()
        if self._tracked is not None:
            self._tracked.close()
        with self._showing() as progress:
            if progress is not None:
                progress.close()


def _add_animation(
    writer: SummaryWriter, tag: str, frames: list[NDArray[np.uint8]], step: int, frames_per_second: int
) -> None:
    """TensorBoard shows an animated GIF as an image (torch's own add_video needs another package for it)."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width = frames[0].shape[:2]
    image = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=encode_gif(frames, frames_per_second)
    )
    file: Any = writer.file_writer
    file.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def encode_gif(frames: list[NDArray[np.uint8]], frames_per_second: int = 8) -> bytes:
    """An animated GIF of frames uint8 [H, W, 3]."""
    return encode_animation(frames, ".gif", frames_per_second)


def encode_animation(frames: list[NDArray[np.uint8]], suffix: str, frames_per_second: int = 8) -> bytes:
    """An animation of frames uint8 [H, W, 3], in the format that a file's suffix names, one of ANIMATIONS."""
    import io

    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    if suffix == ".gif":
        images = [image.quantize(64) for image in images]
    data = io.BytesIO()
    duration = max(20, round(1000 / frames_per_second))
    more: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    images[0].save(data, ANIMATIONS[suffix], save_all=True, append_images=images[1:], duration=duration, loop=0, **more)
    return data.getvalue()


def _drop_after(path: Path, step: int) -> None:
    """Keep the records up to a step; an incomplete last line is removed too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            if read_json(line)["env_steps"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_file(path, "".join(line + "\n" for line in kept).encode())
