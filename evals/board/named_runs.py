"""A folder for TensorBoard in which runs have names that say what they are, beside the means over their seeds.

TensorBoard calls a run by its folder. Here each run is a link, ``ENV/AGENT, SETTINGS THAT DIFFER/seed N``, and runs
that differ only in the seed get one more, ``.../mean of N seeds``: its returns and exploitability are means over the
seeds, with Student's 95% interval of them, as ``mlbits plot`` draws them. The runs' own folders are only read.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard.summary import hparams

from mlbits.evals.curves import band
from mlbits.evals.recorded_runs import Group, RecordedRun, grouped, read_runs
from mlbits.selfplay.curves.events import PREFIX, EventWriter
from mlbits.selfplay.curves.tracking import LAYOUT, hyperparameters, tensorboard_tag

_WITH_INTERVAL = "return/eval"  # the curve whose interval has a chart
_AVERAGED = ("return/", "exploitability/", "rating/")
_ENDS = ("_low", "_high")  # of a single run's interval over episodes; of several runs it is another


class NamedRuns:
    """The folder; it is brought up to date whenever it is asked.

    Args:
        paths: folders of runs, or folders that hold some.
        folder: an empty folder, for the links and the means.

    Attributes:
        runs: the runs that were found last.
    """

    def __init__(self, paths: Sequence[str | Path], folder: Path) -> None:
        self._paths, self._folder = list(paths), folder
        self._means: dict[str, _Mean] = {}
        self.runs: list[RecordedRun] = []

    def update(self) -> None:
        """Look for runs and their records again.

        Raises:
            RecordedRunError: if there is no run, or one is damaged.
            OSError: if the folder cannot be written.
        """
        self.runs = read_runs(self._paths)
        groups = grouped(self.runs)
        wanted = names(groups)
        for old in self._linked() - wanted.keys():
            _remove(self._folder / old)
        for name, run in wanted.items():
            _show(run.folder, self._folder / name)
        several = {mean_name(group): group for group in groups if len(group.runs) > 1}
        for old in self._means.keys() - several.keys():
            self._means.pop(old).close()
            shutil.rmtree(self._folder / old)
        for name, group in several.items():
            if name not in self._means:
                self._means[name] = _Mean(self._folder / name, group.runs[0].config)
            self._means[name].write(group)

    def close(self) -> None:
        """Close the files."""
        for mean in self._means.values():
            mean.close()

    def _linked(self) -> set[str]:
        """The names of the runs that are shown."""
        found = {path.relative_to(self._folder).as_posix() for path in self._folder.glob("*/*/*")}
        return found - self._means.keys()


def names(groups: Sequence[Group]) -> dict[str, RecordedRun]:
    """The runs of groups by their names in TensorBoard; each name once."""
    found: dict[str, RecordedRun] = {}
    for group in groups:
        for run in (*group.runs, *group.repeated):
            name = f"{_folder_of(group)}/seed {_plain(str(run.seed))}"
            if name in found:  # the same settings and seed once more
                name = f"{name}, {_plain(run.folder.name)}"
            number = 2
            while name in found:
                name, number = f"{name.rpartition(' #')[0] or name} #{number}", number + 1
            found[name] = run
    return found


def mean_name(group: Group) -> str:
    """The name of a group's mean."""
    return f"{_folder_of(group)}/mean of {len(group.runs)} seeds"


def _folder_of(group: Group) -> str:
    return f"{_plain(group.env)}/{_plain(group.label)}"


def _plain(text: str) -> str:
    """Text that can be the name of a folder everywhere."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "-", text).strip(" .")[:120] or "-"


def _show(run: Path, at: Path) -> None:
    """Show a run's event files under a name: by a link, or where links are not allowed by copies, which are renewed."""
    if at.is_symlink() and at.resolve() == run.resolve():
        return
    if at.is_symlink():
        at.unlink()
    at.parent.mkdir(parents=True, exist_ok=True)
    if not at.exists():
        with contextlib.suppress(OSError, NotImplementedError):  # Windows allows links to few
            at.symlink_to(run.resolve(), target_is_directory=True)
            return
    at.mkdir(exist_ok=True)
    for file in run.glob(f"{PREFIX}*"):
        copy = at / file.name
        if not copy.exists() or copy.stat().st_size != file.stat().st_size:
            shutil.copyfile(file, copy)


def _remove(shown: Path) -> None:
    if shown.is_symlink():
        shown.unlink()
    else:
        shutil.rmtree(shown)


class _Mean:
    """The event file of a group's means. What is known already is not written again, unless it has changed.

    Args:
        folder: a new folder.
        config: the config.json of one of its runs, for the table of hyperparameters.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True)
        self._writer = EventWriter(folder)
        self._writer.add_custom_scalars(LAYOUT)
        settings = {name: value for name, value in hyperparameters(config).items() if name != "run.seed"}
        file: Any = self._writer.file_writer
        for summary in hparams(settings, {_WITH_INTERVAL: 0.0}):
            file.add_summary(summary)
        self._written: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def write(self, group: Group) -> None:
        """Write the means of what the runs have recorded."""
        shared = set.intersection(*(set(run.curves) for run in group.runs))
        for name in sorted(shared):
            if not name.startswith(_AVERAGED) or name.endswith(_ENDS):
                continue
            found = band(group, name)
            self._add(name, found.x, found.mean)
            if name == _WITH_INTERVAL:
                for end, values in (("low", found.low), ("high", found.high)):
                    # Where all seeds have the same value there is no interval; the chart's band closes there.
                    self._add(f"{name}_{end}", found.x, np.where(np.isfinite(values), values, found.mean))
        self._writer.flush()

    def _add(self, name: str, steps: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        old_steps, old_values = self._written.get(name, (steps[:0], values[:0]))
        known = len(old_steps)
        same = np.array_equal(old_steps, steps[:known]) and np.array_equal(old_values, values[:known])
        # Going back to an earlier step makes TensorBoard forget what came after it.
        for step, value in zip(steps[known if same else 0 :], values[known if same else 0 :], strict=True):
            self._writer.add_scalar(tensorboard_tag(name), float(value), round(float(step)))
        self._written[name] = (steps, values)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
