"""What a sweep found: a table (trials.csv), a plot (sweep.png) and the best settings as a preset (preset.toml)."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mlbits.evals.curves import PlotError
from mlbits.evals.sweep.config import SweepError
from mlbits.evals.sweep.space import Dimension, with_values
from mlbits.evals.sweep.sweep import Sweep, Trial
from mlbits.selfplay.runs.checkpoints import write_file
from mlbits.selfplay.runs.config import Settings, resolve

TABLE, PLOT, PRESET = "trials.csv", "sweep.png", "preset.toml"
_SHOWN = 10  # trials in the printed table
# Settings of a run that belong to a machine or a person rather than to a pair of agent and environment.
_ASIDE = (
    "seed", "device", "threads", "env_workers", "workers", "worker_timeout", "track", "data", "data_hash", "video",
    "keep_best",
)  # fmt: skip


def write_results(sweep: Sweep) -> list[str]:
    """Write the table, the plot and the preset into the sweep's folder.

    Returns:
        Lines for the user: what was written, and why something was not.

    Raises:
        SweepError: if a file cannot be written.
    """
    lines = [f"table: {sweep.folder / TABLE}"]
    try:
        write_file(sweep.folder / TABLE, table_text(sweep).encode())
        if sweep.best is not None:
            write_file(sweep.folder / PRESET, preset_text(best_settings(sweep)).encode())
            lines.append(f"preset: {sweep.folder / PRESET}")
    except OSError as error:
        raise SweepError(
            f"out: {sweep.folder} cannot be written ({error.strerror}); wanted a writable folder"
        ) from None
    try:
        save_plot(sweep)
        lines.append(f"plot: {sweep.folder / PLOT}")
    except PlotError as error:
        lines.append(f"no plot: {error}")
    return lines


def ranked(sweep: Sweep) -> list[Trial]:
    """The trials, best first: complete ones, then pruned ones, then those that failed."""
    sign = -1 if sweep.how.goal == "maximize" else 1
    order = ("complete", "pruned", "failed")

    def place(trial: Trial) -> tuple[int, float, int]:
        value = math.inf if math.isnan(trial.value) else sign * trial.value
        return order.index(trial.state), value, trial.number

    return sorted(sweep.trials, key=place)


def table_text(sweep: Sweep) -> str:
    """All trials as CSV, best first."""
    text = io.StringIO()
    names = [dimension.name for dimension in sweep.space]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", sweep.how.metric, *names, "run"])
    for trial in ranked(sweep):
        value = "" if math.isnan(trial.value) else repr(trial.value)
        run = trial.folder.relative_to(sweep.folder)
        writer.writerow([trial.number, trial.state, value, *(_cell(trial.values.get(name)) for name in names), run])
    return text.getvalue()


def shown_table(sweep: Sweep) -> Table:
    """The best trials, for the terminal."""
    names = [dimension.name for dimension in sweep.space]
    table = Table(title=f"{len(sweep.trials)} trials, best first", title_justify="left")
    for column in ("trial", "state", sweep.how.metric, *names):
        table.add_column(column, justify="left" if column == "state" else "right", overflow="fold")
    for trial in ranked(sweep)[:_SHOWN]:
        cells = [f"{one:.4g}" if isinstance(one, float) else _cell(one) for one in map(trial.values.get, names)]
        table.add_row(str(trial.number), trial.state, "" if math.isnan(trial.value) else f"{trial.value:.6g}", *cells)
    return table


def best_settings(sweep: Sweep) -> Settings:
    """All settings of the best trial.

    Raises:
        SweepError: if no trial is complete.
    """
    if sweep.best is None:
        raise SweepError("trials: none is complete; wanted one")
    return with_values(sweep.settings, sweep.best.values)


def preset_text(settings: Settings) -> str:
    """Settings as an entry of ``presets.toml``: whatever differs from the defaults."""
    plain = resolve(settings.agent, settings.env, preset="none")
    run = {
        name: value for name, value in _changed(settings.run, plain.run).items() if name not in _ASIDE
    }  # fmt: skip
    head = f'{settings.agent}."{settings.env}"'
    parts = [(head, run), (f"{head}.agent", _changed(settings.agent_config, plain.agent_config))]
    parts += [(f"{head}.env", dict(settings.env_settings))] if settings.env_settings else []
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items()) for name, values in parts
    )


def save_plot(sweep: Sweep) -> None:
    """Draw the trials' values in their order, and over each setting.

    Raises:
        PlotError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, NullFormatter
    except ImportError:
        raise PlotError('matplotlib is not installed; wanted pip install "mlbits[plot]"') from None
    panels = 1 + len(sweep.space)
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    kinds = {"complete": ("#0072B2", "o"), "pruned": ("#E69F00", "x")}
    drawn = [trial for trial in sweep.trials if trial.state in kinds and not math.isnan(trial.value)]
    better = max if sweep.how.goal == "maximize" else min
    for k in range(panels):
        axes = figure.add_subplot(rows, columns, k + 1)
        if k == 0:
            places: dict[int, Any] = {trial.number: trial.number for trial in drawn}
            whole = [trial for trial in drawn if trial.state == "complete"]
            best = [better(one.value for one in whole[: n + 1]) for n in range(len(whole))]
            axes.step([trial.number for trial in whole], best, where="post", color="#888888", label="best so far")
            axes.set_xlabel("trial")
            axes.set_ylabel(sweep.how.metric)
        else:
            dimension = sweep.space[k - 1]
            axes.set_xlabel(dimension.name)
            if dimension.kind == "choices":
                texts = [_cell(choice) for choice in dimension.choices]
                axes.set_xticks(range(len(texts)), texts)
                places = {trial.number: texts.index(_cell(trial.values.get(dimension.name))) for trial in drawn}
            else:
                axes.set_xscale("log" if dimension.log else "linear")
                axes.set_xlim(*_wider(dimension))
                if dimension.kind == "int" and not dimension.log:
                    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
                axes.xaxis.set_minor_formatter(NullFormatter())
                places = {trial.number: trial.values[dimension.name] for trial in drawn}
        for state, (colour, marker) in kinds.items():
            of_state = [trial for trial in drawn if trial.state == state]
            axes.scatter(
                [places[trial.number] for trial in of_state], [trial.value for trial in of_state], color=colour,
                marker=marker, s=18, label=state if of_state else None,
            )  # fmt: skip
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        if k == 0 and drawn:
            axes.legend(fontsize="small")
    figure.suptitle(f"{sweep.settings.agent} on {sweep.settings.env}", fontsize="medium")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_file(sweep.folder / PLOT, data.getvalue())


def _wider(dimension: Dimension) -> tuple[float, float]:
    """The range of a setting with a margin, so that points at its bounds are whole."""
    if dimension.log:
        margin = (dimension.high / dimension.low) ** 0.05
        return dimension.low / margin, dimension.high * margin
    margin = 0.05 * (dimension.high - dimension.low)
    return dimension.low - margin, dimension.high + margin


def _changed(config: Any, plain: Any) -> dict[str, Any]:
    values: Mapping[str, Any] = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if value != getattr(plain, name) and value is not None}


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _toml(value: Any) -> str:
    """A value as TOML: of plain values JSON's text, but for infinities."""
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
