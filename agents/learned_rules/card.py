"""The card of a rule: what it was trained on, with which settings, how it does, and what is not known of it."""

from __future__ import annotations

from typing import Any

from mlbits.agents.learned_rules.files import FORMAT, SavedRule
from mlbits.agents.learned_rules.rule import SIGN


def card(name: str, saved: SavedRule) -> str:
    """Markdown that describes a rule, from what its file says.

    Args:
        name: of the file.
        saved: its content.
    """
    about, config = dict(saved.about), saved.rule.config
    levels, settings, evaluation = about.get("levels", {}), about.get("settings", {}), about.get("evaluation") or {}
    numbers = sum(value.numel() for value in saved.rule.parameters())
    first, end = levels.get("numbers", (0, 0))
    lines = [
        f"# {name}",
        "",
        f"An update rule for agents with Discrete actions (LPG, Oh et al. 2020): a GRU of {config.hidden} units, "
        f"{numbers:,} weights, for {config.predictions} predictions; the discount factor is {config.discount:g}. "
        "It is used by `mlbits train lpg ENV --agent.rule FILE`.",
        "",
        "| | |",
        "|---|---|",
        f"| format, sign convention | {FORMAT}, {SIGN} |",
        f"| levels | {levels.get('levels')}, of the split {levels.get('split')}: numbers {first:,} to {end - 1:,} |",
        f"| lifetimes that ended | {levels.get('lifetimes_ended', 0):,} |",
        f"| environment steps | {about.get('env_steps', 0):,} |",
        f"| CPU seconds, evaluations included | {about.get('cpu_seconds', 0):,.0f} |",
        f"| seed | {about.get('seed')} |",
        f"| copies in all | {about.get('num_envs', 0):,} |",
        f"| for tabular agents | learning rate {saved.learning_rate:g}, alpha {saved.alpha:g} |",
        f"| trained with | {about.get('trained_with')} |",
        f"| digest | `{saved.digest}` |",
        "",
        *_results(evaluation),
        "## Settings of meta-training",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| `{key}` | `{value}` |" for key, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def _results(evaluation: dict[str, Any]) -> list[str]:
    """The section on the last evaluation, if there was one."""
    rewards = evaluation.get("rewards")
    if not rewards:
        return []
    low, high = evaluation["return_interval"]
    rows = [
        f"| {who} | {rewards[f'final_reward{key}']:.4f} | {rewards[f'lifetime_reward{key}']:.4f} |"
        for who, key in (("this rule", ""), ("A2C", "_a2c"), ("random play", "_random"))
    ]
    return [
        "## Results",
        "",
        f"In the levels of its last evaluation ({evaluation['episodes']}, of the training split, drawn with another "
        "seed; not the held-out ones): mean reward a step, in the last tenth of a lifetime and over all of it. A2C is "
        "one setting, not tuned.",
        "",
        "| teacher | last tenth | whole lifetime |",
        "|---|---|---|",
        *rows,
        "",
        f"95% interval of the rule's last tenth over levels: {low:.4f} to {high:.4f}. One seed of meta-training; "
        "nothing is claimed of other levels.",
        "",
    ]
