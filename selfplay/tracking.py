"""What a run writes down as it goes: TensorBoard, ``metrics.jsonl``, and a line on the terminal.

Names are stable, in ``metrics.jsonl``:

| name | meaning |
|---|---|
| return/train, return/eval | mean return of the latest training episodes; of an evaluation |
| return/train_length, return/eval_length | mean length of those episodes, in steps |
| return/eval_low, return/eval_high | 95% interval of the evaluation's mean |
| learn/* | what the agent reports (losses, entropy, KL, ...) |
| speed/steps_per_second | environment steps a wall second since the last record, evaluation left out |
| time/environment, network, learning, evaluation, rest | shares of the wall time |

In TensorBoard the x axis is environment steps, and what it shows first are the returns: its pages are sorted by the
names before the slash, so that those that would come before ``return`` stand under others there, pictures last (see
:func:`tensorboard_tag`). The custom layout opens on the returns too, with the evaluations' interval as a margin.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mlbits.selfplay.checkpoints import write_file

TIMES = ("environment", "network", "learning", "evaluation", "rest")


def _exactly(*tags: str) -> list[Any]:
    """A chart of some tags and no others: TensorBoard takes each for a regular expression that a tag begins with."""
    return ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]


# A margin's value, lower and upper end are no expressions, but names.
_LAYOUT = {
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
    """The name of a curve or picture in TensorBoard: its own, or one that is sorted behind the returns.

    | name | in TensorBoard |
    |---|---|
    | learn/x | train/x |
    | exploitability/x, pool/x, rating/x | selfplay/exploitability_x, selfplay/pool_x, selfplay/x |
    | others that are sorted before return | run/..., slashes as underscores |
    | pictures | view/..., slashes as underscores |
    """
    if picture:
        return _PICTURES + name.replace("/", "_")
    group, _, rest = name.partition("/")
    if group in _GROUPS:
        return _GROUPS[group] + rest
    return name if group.lower() >= _FIRST else _OTHERS + name.replace("/", "_")


_PLAIN_LINE_EVERY = 5.0  # seconds


class Tracker:
    """Writes a run's records.

    Args:
        folder: the run's folder.
        total_steps: environment steps at which the run ends.
        resumed_at: environment steps of the checkpoint that the run goes on from, or None for a new run; later
            records of the interrupted run are dropped.
        console: whether to show progress.
        on_closed_pipe: called when nobody reads what is shown any more; nothing is shown after that.
    """

    def __init__(
        self, folder: Path, total_steps: int, resumed_at: int | None = None, console: bool = True,
        on_closed_pipe: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._metrics = folder / "metrics.jsonl"
        if resumed_at is not None:
            _drop_after(self._metrics, resumed_at)
        purge = None if resumed_at is None else resumed_at + 1
        self.writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=10)
        if resumed_at is None:
            self.writer.add_custom_scalars(_LAYOUT)
        self._file = self._metrics.open("a", buffering=1)
        self._said: set[str] = set()
        self._progress = Progress(total_steps) if console else None
        self._on_closed_pipe = on_closed_pipe

    def describe(self, config: Mapping[str, Any]) -> None:
        """Write the settings as text and as hyperparameters."""
        self.writer.add_text("config", f"```json\n{json.dumps(config, indent=2, default=str)}\n```", 0)
        flat = {}
        for group in ("run", "agent_config", "env_settings"):
            for name, value in config.get(group, {}).items():
                flat[f"{group.removesuffix('_config').removesuffix('_settings')}.{name}"] = value
        flat |= {"agent": config["agent"], "env": config["env"]}
        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in flat.items()}
        writer: Any = self.writer.file_writer
        for summary in hparams(plain, {"return/eval": 0.0}):
            writer.add_summary(summary)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars at a number of environment steps; NaN means "nothing to say" and is left out, as infinity."""
        values = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        for name, value in values.items():
            self.writer.add_scalar(tensorboard_tag(name), value, step)
        self._file.write(json.dumps({"env_steps": step, **values}) + "\n")
        with self._showing() as progress:
            if progress is not None:
                progress.show(step, values)

    @contextlib.contextmanager
    def _showing(self) -> Iterator[Progress | None]:
        """The progress, until nobody reads it."""
        try:
            yield self._progress
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe without a reader, a terminal that is gone
                raise
            self._progress = None
            self._on_closed_pipe()

    def stopped(self, error: Exception) -> None:
        """Write down, as a text, what ended the run."""
        self.writer.add_text("stopped", str(error), 0)

    def picture(
        self, step: int, frames: list[NDArray[np.uint8]], frames_per_second: int = 8, name: str = "episode"
    ) -> None:
        """Write the frames of an episode, as an animation (one frame: as an image)."""
        if not frames:
            return
        name = tensorboard_tag(name, picture=True)
        if len(frames) == 1:
            self.writer.add_image(name, frames[0], step, dataformats="HWC")
        else:
            _add_animation(self.writer, name, frames, step, frames_per_second)

    def say(self, text: str, once: bool = False) -> None:
        """Print a line above the progress; with ``once`` not the same line twice."""
        if once and text in self._said:
            return
        self._said.add(text)
        with self._showing() as progress:
            if progress is not None:
                progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def flush(self) -> None:
        """Hand everything to the system (before a checkpoint names this step)."""
        self.writer.flush()
        self._file.flush()

    def close(self) -> None:
        """Finish the files and the progress line."""
        self.writer.close()
        self._file.close()
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
    import io

    from PIL import Image

    images = [Image.fromarray(frame).quantize(64) for frame in frames]
    data = io.BytesIO()
    duration = max(20, round(1000 / frames_per_second))
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return data.getvalue()


class _Console(Console):
    """Rich's, which leaves it to the caller what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Pass the error on (rich's own ends the process)."""
        raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed")


class Progress:
    """One live line on a terminal, or a plain line every few seconds where there is none."""

    def __init__(self, total_steps: int) -> None:
        self.console = _Console(stderr=False)
        self._total = total_steps
        self._latest: dict[str, float] = {}
        self._shown = 0.0
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=False)
            self._live.start()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the latest record."""
        self._latest |= values
        now = time.monotonic()
        due = now - self._shown >= (0.25 if self._live else _PLAIN_LINE_EVERY)
        if "speed/steps_per_second" not in values or not (due or step >= self._total):
            return
        self._shown = now
        cells = self._cells(step)
        if self._live is not None:
            table = Table.grid(padding=(0, 2))
            table.add_row(*cells)
            self._live.update(table)
        else:
            print("  ".join(cells), file=sys.stdout, flush=True)

    def _cells(self, step: int) -> list[str]:
        values = self._latest
        speed = values.get("speed/steps_per_second", 0.0)
        left = (self._total - step) / speed if speed > 0 else float("nan")
        cells = [f"{step:,}/{self._total:,} steps ({min(1.0, step / self._total):.0%})", f"{_short(speed)} steps/s"]
        for name, label in (("return/train", "return"), ("return/eval", "eval")):
            if name in values:
                cells.append(f"{label} {values[name]:.3g}")
        cells.append(f"{_duration(left)} left")
        shares = {part: values.get(f"time/{part}", 0.0) for part in TIMES}
        parts = [f"{part} {share:.0%}" for part, share in shares.items() if share >= 0.005]
        return [*cells, *([" ".join(parts)] if parts else [])]

    def close(self) -> None:
        """Leave the last line standing."""
        if self._live is not None:
            self._live.stop()


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _drop_after(path: Path, step: int) -> None:
    """Keep the records up to a step; a last line that was cut in the middle goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            if json.loads(line)["env_steps"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_file(path, "".join(line + "\n" for line in kept).encode())
