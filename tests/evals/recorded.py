"""Folders of runs with settings and curves written by hand, for tests of what reads them."""

import json

from mlbits.selfplay.runs.config import portable, resolve


def write_run(
    folder, curves, agent="ppo", env="mlbits/CartPole-v0", summary=None, env_settings=None, agent_settings=None, **run
):
    """Write a run's folder.

    Args:
        folder: the new folder.
        curves: by name, values by step.
        agent: the agent.
        env: the environment.
        summary: the content of summary.json, or None for none.
        env_settings: of the environment.
        agent_settings: of the agent.
        **run: settings of the run.
    """  # fmt: skip
    folder.mkdir(parents=True)
    settings = resolve(agent, env, run=run, agent_settings=agent_settings, env_settings=env_settings)
    (folder / "config.json").write_text(json.dumps(portable(settings)))
    lines = [json.dumps({"env_steps": step, tag: value}) for tag, of in curves.items() for step, value in of.items()]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
