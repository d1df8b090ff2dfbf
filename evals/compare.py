"""Runs beside each other: the settings that differ, results with 95% intervals, speed.

Runs that differ only in the seed are one column, whose results are means over the seeds with Student's interval; a
single run has the interval over its evaluation's episodes, which says nothing about other seeds.

Example:
    found = compare(["runs/a", "runs/b"])
    print(table(found))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbits.evals.recorded_runs import Group, RecordedRun, RecordedRunError, differences, grouped, read_runs, value_text
from mlbits.selfplay.statistics import difference_interval, mean_interval

# Of config.json beside the settings: with what a run was made. A commit is shown by its first digits.
_MADE_WITH, _COMMIT = ("version", "git_hash", "python", "torch"), 12
_GAP = 2  # between the columns of the table


def compare(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Compare runs.

    Args:
        paths: folders of runs, or folders that hold some.

    Returns:
        Plain data: "differing" (names of settings and of what runs were made with), "left_out" (folders of runs with
        the settings and the seed of another), and "groups", a list of
        {label, agent, env, folders, seeds, finished (how many runs), settings (those that differ; None where it has
        none), env_steps, results, difference, speed}. "results" is a list of {name, mean, interval, over ("seeds" or
        "episodes"), count, values (one per run)}; "difference" is that of the mean return to the first group's, with
        its 95% interval (Welch), where both have several seeds in one environment, else None. "speed" is
        {steps_per_second, steps_per_cpu_second, cpu_seconds, wall_seconds}, means over the runs, or None for runs
        without times.

    Raises:
        RecordedRunError: if there is no run, or only one.
    """
    runs = read_runs(paths)
    if len(runs) < 2:
        raise RecordedRunError(f"runs: got only {runs[0].folder}; wanted two or more to compare")
    groups = grouped(runs)
    firsts = [group.runs[0] for group in groups]
    settings, made = differences(firsts), _made_differently(firsts)
    found = [_column(group, settings, made) for group in groups]
    for column, group in zip(found, groups, strict=True):
        column["difference"] = _difference(group, groups[0])
    left_out = [str(run.folder) for group in groups for run in group.repeated]
    return {"differing": [*settings, *made], "left_out": left_out, "groups": found}


def table(found: Mapping[str, Any], width: int = 100) -> str:
    """A comparison as text: a column for each group, in several tables if they are wider than ``width`` characters."""
    groups = found["groups"]
    lines = [f"{number}  {_title(group)}" for number, group in enumerate(groups, start=1)]
    lines += [f"left out {folder}: it has the settings and the seed of another run" for folder in found["left_out"]]
    sections = [
        ("settings that differ", [(name, [_setting(group, name) for group in groups]) for name in found["differing"]]),
        ("results", _result_rows(groups)),
        ("speed", _speed_rows(groups)),
    ]
    names = [name for title, rows in sections for name in (title, *(row[0] for row in rows))]
    first = max(len(name) for name in names) + _GAP
    widths = [
        max(len(str(k + 1)), *(len(row[1][k]) for _, rows in sections for row in rows)) + _GAP
        for k in range(len(groups))
    ]
    for some in _fitting(widths, width - first):
        head = "".join(str(k + 1).rjust(widths[k]) for k in some)
        for title, rows in sections:
            if rows:
                lines += ["", title.ljust(first) + head]
                lines += [name.ljust(first) + "".join(cells[k].rjust(widths[k]) for k in some) for name, cells in rows]
    if any(result["over"] == "episodes" for group in groups for result in group["results"]):
        lines += ["", "intervals of single runs are over episodes: other seeds may give other results"]
    return "\n".join(line.rstrip() for line in lines)


def _column(group: Group, settings: Sequence[str], made: Sequence[str]) -> dict[str, Any]:
    first = group.runs[0]
    own = {name: first.settings.get(name, "default" if name.startswith("env.") else None) for name in settings}
    own |= {name: str(first.config.get(name, "unknown"))[:_COMMIT] for name in made}
    return {
        "label": group.label,
        "agent": first.agent,
        "env": first.env,
        "folders": [str(run.folder) for run in group.runs],
        "seeds": [run.seed for run in group.runs],
        "finished": sum(bool(run.result) for run in group.runs),
        "settings": own,
        "env_steps": [_steps(run) for run in group.runs],
        "results": _results(group),
        "speed": _speed(group),
    }


def _made_differently(runs: Sequence[RecordedRun]) -> list[str]:
    return [name for name in _MADE_WITH if len({str(run.config.get(name, "unknown")) for run in runs}) > 1]


def _results(group: Group) -> list[dict[str, Any]]:
    """The return and what else was measured, each with its interval."""
    by_name: dict[str, list[tuple[float, Sequence[float], int]]] = {}
    for run in group.runs:
        for name, *rest in _measured(run):
            by_name.setdefault(name, []).append(rest)  # type: ignore[arg-type]
    results = []
    for name, values in by_name.items():
        numbers = [value for value, _, _ in values]
        if len(numbers) == len(group.runs) > 1:
            mean, interval = mean_interval(numbers)
            results.append(_result(name, mean, interval, "seeds", len(numbers), numbers))
        elif len(group.runs) == 1:
            results.append(_result(name, numbers[0], values[0][1], "episodes", values[0][2], numbers))
    solved = [_solved(run) for run in group.runs]
    if all(step is not None for step in solved):
        steps = [float(step) for step in solved if step is not None]
        mean, interval = mean_interval(steps)
        results.append(_result("solved at (steps)", mean, interval, "seeds", len(steps), steps))
    return results


def _result(
    name: str, mean: float, interval: Sequence[float], over: str, count: int, values: Sequence[float]
) -> dict[str, Any]:
    return {
        "name": name, "mean": mean, "interval": list(interval), "over": over, "count": count, "values": list(values),
    }  # fmt: skip


def _measured(run: RecordedRun) -> list[tuple[str, float, Sequence[float], int]]:
    """What a run's last evaluation found: (name, mean, interval, number of episodes).

    Of a run that is not finished, from its latest record of an evaluation.

    Raises:
        RecordedRunError: if its summary is damaged.
    """
    summary = run.result
    if "return_mean" not in summary:
        return _latest(run)
    try:
        low, high = summary["return_interval"]
        found = [("return", float(summary["return_mean"]), (float(low), float(high)), int(summary["episodes"]))]
        if summary.get("best_return_mean") is not None:
            found.append(("best return", float(summary["best_return_mean"]), (-math.inf, math.inf), 0))
        measured = summary.get("measured") or {}
        if "exploitability" in measured:
            value = float(measured["exploitability"])
            found.append(("exploitability", value, (value, value), 0))
        for row in measured.get("against", ()):
            low, high = row["won_interval"]
            name = str(row["opponent"]).partition(" (")[0]
            found.append((f"won against {name}", float(row["won"]), (float(low), float(high)), int(row["games"])))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecordedRunError(
            f"{run.folder}: its summary.json is damaged ({error}); nothing needs it: delete it"
        ) from None
    return found  # type: ignore[return-value]


def _latest(run: RecordedRun) -> list[tuple[str, float, Sequence[float], int]]:
    if "return/eval" not in run.curves:
        return []
    ends = [run.curves[name].values[-1] for name in ("return/eval_low", "return/eval_high") if name in run.curves]
    interval = (float(ends[0]), float(ends[1])) if len(ends) == 2 else (-math.inf, math.inf)
    episodes = run.settings.get("eval_episodes")
    count = episodes if isinstance(episodes, int) else 0
    return [("return", float(run.curves["return/eval"].values[-1]), interval, count)]


def _solved(run: RecordedRun) -> int | None:
    """The step at which a run was solved, if it was."""
    at = run.result.get("solved_at")
    step = at.get("env_steps") if isinstance(at, dict) else None
    return step if isinstance(step, int) else None


def _steps(run: RecordedRun) -> int:
    done = run.result.get("env_steps")
    return done if isinstance(done, int) else run.last_step


def _difference(group: Group, first: Group) -> dict[str, Any] | None:
    """How much higher the mean return is than the first group's."""
    if group is first or group.env != first.env or min(len(group.runs), len(first.runs)) < 2:
        return None
    returns = [[row[1] for run in some.runs for row in _measured(run) if row[0] == "return"] for some in (group, first)]
    if [len(some) for some in returns] != [len(group.runs), len(first.runs)]:
        return None
    mean, interval = difference_interval(returns[0], returns[1])
    return {"mean": mean, "interval": list(interval)}


def _speed(group: Group) -> dict[str, float] | None:
    """Steps a second over whole runs, imports and evaluations included, and the seconds; means over the runs."""
    rows = []
    for run in group.runs:
        seconds = []
        for clock in ("wall_seconds", "cpu_seconds"):
            value = run.result.get(clock)
            if not isinstance(value, (int, float)) and f"speed/{clock}" in run.curves:
                value = run.curves[f"speed/{clock}"].values[-1]
            seconds.append(float(value) if isinstance(value, (int, float)) else math.nan)
        rows.append((_steps(run), *seconds))
    if any(not (wall > 0 and cpu > 0) for _, wall, cpu in rows):
        return None
    count = len(rows)
    return {
        "steps_per_second": sum(steps / wall for steps, wall, _ in rows) / count,
        "steps_per_cpu_second": sum(steps / cpu for steps, _, cpu in rows) / count,
        "wall_seconds": sum(wall for _, wall, _ in rows) / count,
        "cpu_seconds": sum(cpu for _, _, cpu in rows) / count,
    }


def _title(group: Mapping[str, Any]) -> str:
    """What a column is of: the label, the environment, the folders, and whether it is finished."""
    count, done = len(group["folders"]), group["finished"]
    seeds = f"{count} seeds" if count > 1 else f"seed {group['seeds'][0]}"
    under_way = "" if done == count else ", not finished" if count == 1 else f", {count - done} not finished"
    folder = group["folders"][0] if count == 1 else f"{group['folders'][0]} and {count - 1} more"
    return f"{group['label']} on {group['env']} ({seeds}{under_way}): {folder}"


def _setting(group: Mapping[str, Any], name: str) -> str:
    value = group["settings"][name]
    return "-" if value is None else value_text(value)


def _result_rows(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    rows: list[tuple[str, list[str]]] = []
    names = dict.fromkeys(result["name"] for group in groups for result in group["results"])
    for name in names:
        of = [next((result for result in group["results"] if result["name"] == name), None) for group in groups]
        rows.append((name, ["-" if result is None else _number(result["mean"]) for result in of]))
        if any(result is not None and result["count"] for result in of):
            rows.append(("  95% interval", ["-" if result is None else _interval(result) for result in of]))
    if any(group["difference"] for group in groups):
        cells = [group["difference"] for group in groups]
        rows.append(("return, less that of 1", ["-" if cell is None else f"{cell['mean']:+.4g}" for cell in cells]))
        texts = ["-" if cell is None else _ends(cell["interval"], "unknown") for cell in cells]
        rows.append(("  95% interval", texts))
    rows.append(("steps", [_range(group["env_steps"]) for group in groups]))
    return rows


def _speed_rows(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    names = {
        "steps per second": "steps_per_second", "steps per CPU-second": "steps_per_cpu_second",
        "wall time (s)": "wall_seconds", "CPU time (s)": "cpu_seconds",
    }  # fmt: skip
    speeds = [group["speed"] for group in groups]
    if not any(speeds):
        return []
    return [(name, ["-" if of is None else _number(of[key]) for of in speeds]) for name, key in names.items()]


def _interval(result: Mapping[str, Any]) -> str:
    if not result["count"]:
        return "-"
    equal = f"all {result['count']} equal" if result["count"] > 1 else "-"
    return _ends(result["interval"], equal)


def _ends(interval: Sequence[float], unknown: str) -> str:
    low, high = interval
    if math.isinf(low) and math.isinf(high):
        return unknown
    return f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _fitting(widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns in parts that fit into a width, at least one in each."""
    parts: list[list[int]] = [[]]
    for column, wide in enumerate(widths):
        if parts[-1] and sum(widths[k] for k in parts[-1]) + wide > width:
            parts.append([])
        parts[-1].append(column)
    return parts
