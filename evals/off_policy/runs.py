"""Off-policy evaluation of a run's agent, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.memory.dataset_spaces import same_space
from mlbits.agents.memory.minari import read_dataset
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.off_policy.estimators import OffPolicyError
from mlbits.evals.off_policy.evaluation import evaluate_off_policy, summary_lines
from mlbits.evals.off_policy.flags import OffPolicyFlags
from mlbits.selfplay.runs.saved_agents import load_agent_and_problems
from mlbits.selfplay.statistics import interval_text

_DISCOUNT = 0.99  # of agents that have none


def evaluate_run_off_policy(
    folder: str | Path,
    dataset: str | Path | Dataset,
    flags: OffPolicyFlags | None = None,
    *,
    greedy: bool = True,
    seed: int = 1,
    device: str = "cpu",
) -> dict[str, Any]:
    """Estimate the value of a run's agent from a dataset, without playing.

    Args:
        folder: the run's folder.
        dataset: a dataset, its name, or its folder.
        flags: how; None for the defaults.
        greedy: whether the agent takes its most probable action instead of a draw.
        seed: of all random draws.
        device: the agent's.

    Returns:
        As :func:`~mlbits.evals.off_policy.evaluation.evaluate_off_policy`, and "dataset", "env_steps" (of the
        checkpoint), "passed_over" (a message for each newer checkpoint that could not be used).

    Raises:
        OffPolicyError: for a dataset of other spaces than the run's environment, and as that function does.
        DatasetError: for a dataset that cannot be read.
    """
    flags = OffPolicyFlags() if flags is None else flags
    agent, settings, state, problems = load_agent_and_problems(folder, device)
    data = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
    batch = open_batch(settings.env, 1, settings=settings.env_settings, start=False)
    for what in ("observation_space", "action_space"):
        one, other = getattr(data, what), getattr(batch, what)
        if not same_space(one, other, bounds=what == "action_space"):
            name = what.replace("_", " ")
            raise OffPolicyError(f"off_policy: the {name} of {data.name} is {one}; {folder} was trained on {other}")
    batch.close()
    discount = getattr(settings.agent_config, "discount", _DISCOUNT) if flags.discount is None else flags.discount
    result = evaluate_off_policy(
        agent, data, discount=float(discount), horizon=flags.horizon, greedy=greedy, behaviour=flags.behaviour,
        features=flags.features, resamples=flags.resamples, refits=flags.refits, seed=seed, device=device,
    )  # fmt: skip
    if data.env is not None and data.env.rpartition(":")[2] != settings.env.rpartition(":")[2]:
        result["notes"].append(
            f"the data are of {data.env}, the run of {settings.env}: spaces are the same, rules may not be"
        )
    return result | {"dataset": data.name, "env_steps": state["env_steps"], "passed_over": problems}


def print_off_policy(result: Mapping[str, Any]) -> None:
    """Print the estimates as a table, and below it what they rest on and are worth."""
    from mlbits.evals.reproductions.reproduction import print_table

    how = "greedy" if result["greedy"] else "sampled"
    title = (
        f"value of the {how} policy (checkpoint at {result['env_steps']:,} steps) at discount {result['discount']:g}, "
        f"from {result['episodes']:,} episodes ({result['steps']:,} steps) of {result['dataset']}"
    )
    cells = []
    for row in result["rows"]:
        sizes = ["-", "-"] if row["ess"] is None else [f"{row['ess']:.1f}", f"{row['max_weight']:.0%}"]
        numbers = ["-" if number is None else f"{number:.4g}" for number in (row["value"], *row["interval"])]
        verdict = row["verdict"].partition(":")[0]
        cells.append([row["name"], *numbers, *sizes, verdict])
    if cells:
        columns = ["estimator", "value", "95% from", "to", "effective episodes", "largest weight", "verdict"]
        print_table(title, columns, cells, width=110)
    else:
        print(title)
    interval = interval_text(result["data_interval"], result["episodes"])
    print(f"the data's own mean discounted return: {result['data_value']:.4g} ({interval})")
    for line in summary_lines(result):
        print(line)
