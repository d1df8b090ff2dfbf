"""What there is to know about one environment or one agent, for ``mlbits list --env ID`` and ``--agent NAME``.

An environment's rewards, actions and sources are read from the docstring of the module that defines it, its settings
from its factory, and who can play it is found out by making each agent for its spaces.

Example:
    found = describe_env("mlbits/GridWorld-v0", {"map": "maze"})
    print(env_text(found))
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docstring_parser
import gymnasium as gym
import torch

from mlbits.agents.registry import AGENTS, AgentEntry, agent_entry, check_agent
from mlbits.envs.core.config_fields import range_text, setting_of
from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.core.game import Game
from mlbits.envs.doors.gymnasium_batch import AnyBatch, open_batch
from mlbits.envs.doors.gymnasium_ids import check_env_id, reward_threshold
from mlbits.envs.registry import entry, registered
from mlbits.evals.optimal_return import reference_returns
from mlbits.evals.recorded_runs import value_text
from mlbits.selfplay.runs.command_line import plain
from mlbits.selfplay.runs.config import presets
from mlbits.selfplay.runs.env_flags import constructor_settings
from mlbits.selfplay.runs.saved_agents import game_of

_SECTIONS = ("Description", "Actions", "Observations", "Rewards", "Start", "End")
# The same in the docstrings of Gymnasium's environments.
_THEIRS = {
    "Description": "Description", "Action Space": "Actions", "Observation Space": "Observations", "Rewards": "Rewards",
    "Starting State": "Start", "Episode End": "End", "Arguments": "Arguments",
}  # fmt: skip
_STEPS, _SEED = 5, 1  # of the picture: random steps from the start


def describe_env(env: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What there is to know about an environment.

    Args:
        env: its id, ours or Gymnasium's, or "module:id".
        settings: its settings; spaces, agents and the optimum are those under them.

    Returns:
        Plain data: id, summary, seats, action_space and observation_space (as text), masked, in_turn,
        solved_at (mean return or None), about (texts by "Rewards" and the like, as far as they are documented),
        settings (name, default, type, meaning), presets and agents (names), refused (a reason by agent), optimum and
        random_return (mean returns, None where they are not known), and source.

    Raises:
        UnknownIdError: if there is no such id; the message names the nearest.
        GameError: if a setting is unknown or out of range, or a package is missing.
    """
    env, settings = check_env_id(env), dict(settings or {})
    batch = open_batch(env, 1, settings=settings, start=False)
    try:
        game = game_of(env, settings)
        able, refused = _agents_for(batch, game)
        reference = reference_returns(env, settings) if batch.num_seats == 1 else None
        own = env in registered()
        return {
            "id": env,
            "summary": entry(env).summary if own else "",
            "seats": batch.num_seats,
            "action_space": " ".join(str(batch.action_space).split()),
            "observation_space": " ".join(str(batch.observation_space).split()),
            "masked": game is not None and game.legal is not None,
            "in_turn": game is not None and game.acts is not None,
            "solved_at": None if settings else reward_threshold(env),
            "about": _about_game(env) if own else _about_wrapped(batch),
            "settings": _game_settings(env) if own else _wrapped_settings(env),
            "presets": [agent for agent, envs in presets().items() if env in envs],
            "agents": able,
            "refused": refused,
            "optimum": None if reference is None else reference.optimum,
            "random_return": None if reference is None else reference.random,
            "source": _source(entry(env).load()) if own else str(gym.spec(env).entry_point),
        }
    finally:
        batch.close()


def env_text(found: Mapping[str, Any], width: int = 100) -> str:
    """The result of :func:`describe_env` as text of a width."""
    spaces = [("action space", found["action_space"]), ("observation space", found["observation_space"])]
    seats = f"{found['seats']}" + (", in turn" if found["in_turn"] else ", simultaneous" * (found["seats"] > 1))
    facts = [*spaces, ("masks", "some actions are illegal at times")] if found["masked"] else spaces
    facts += [("seats", seats)]
    if found["solved_at"] is not None:
        facts += [("solved at", f"a mean return of {found['solved_at']:g}")]
    if found["optimum"] is not None:
        facts += [("optimum", f"{found['optimum']:.4g}, exact; random play {found['random_return']:.4g}")]
    facts += [("presets", ", ".join(found["presets"]) or "none"), ("agents", ", ".join(found["agents"]))]
    facts += [("source", found["source"])]
    lines = [f"{found['id']}: {found['summary']}" if found["summary"] else found["id"], ""]
    lines += _facts(facts, width)
    for title, text in found["about"].items():
        lines += ["", f"{title}:", textwrap.indent(text, "    ")]
    lines += ["", *_settings_lines("--env.", found["settings"], width)]
    return "\n".join(line.rstrip() for line in lines)


def describe_agent(name: str) -> dict[str, Any]:
    """What there is to know about an agent.

    Args:
        name: a registered name, or "module:name".

    Returns:
        Plain data: name, summary, actions and observations (the kinds of spaces that it takes), bot, plans, offline,
        settings (name, default, type, meaning), presets (values by environment) and source.

    Raises:
        UnknownIdError: for an unknown name; the message suggests the nearest.
    """
    name = check_agent(name)
    kind = agent_entry(name)
    config = kind.config_class()
    return {
        "name": name,
        "summary": kind.summary,
        "actions": list(kind.actions),
        "observations": list(kind.observations),
        "bot": kind.bot,
        "plans": kind.plans,
        "offline": kind.offline,
        "settings": [_config_setting(config, field) for field in dataclasses.fields(config)],
        "presets": presets().get(name, {}),
        "source": _source(config),
    }


def agent_text(found: Mapping[str, Any], width: int = 100) -> str:
    """The result of :func:`describe_agent` as text of a width."""
    kinds = {
        "bot": "plays without training", "offline": "learns from a dataset (--data)",
        "plans": "looks ahead by the rules, in mlbits' own games only",
    }  # fmt: skip
    said = "; ".join(text for key, text in kinds.items() if found[key])
    facts = [("how", said)] if said else []
    facts += [("actions", _words(found["actions"])), ("observations", _words(found["observations"]))]
    facts += [("presets", ", ".join(found["presets"]) or "none"), ("source", found["source"])]
    lines = [f"{found['name']}: {found['summary']}", "", *_facts(facts, width), ""]
    lines += _settings_lines(f"{found['name']}@" if found["bot"] else "--agent.", found["settings"], width)
    for env, values in found["presets"].items():
        lines += ["", f"preset for {env}:", *_facts(_preset_values(values), width)]
    return "\n".join(line.rstrip() for line in lines)


def draw_env(env: str, settings: Mapping[str, Any] | None, path: Path) -> None:
    """Write a picture of an environment after a few random steps.

    Args:
        env: its id.
        settings: its settings.
        path: an image file, .png, .jpg, .gif or .webp.

    Raises:
        GameError: if the environment does not draw itself, or the file cannot be written.
    """
    from PIL import Image

    batch = open_batch(
        env, 1, seed=_SEED, settings=settings, autoreset="disabled", illegal="replace", render_mode="rgb_array"
    )
    try:
        for _ in range(_STEPS):
            if bool((batch.terminated | batch.truncated)[0]):
                break
            batch.step(batch.sample_actions())
        frame = batch.render()
    finally:
        batch.close()
    if frame is None:
        raise GameError(f"picture: {env} does not draw pictures")
    try:
        Image.fromarray(frame).save(path)
    except (OSError, ValueError) as error:
        raise GameError(f"picture: {path} cannot be written ({error}); wanted an image file, as env.png") from None


def _agents_for(batch: AnyBatch, game: Game | None) -> tuple[list[str], dict[str, str]]:
    """The agents that can play an environment, and why the others cannot."""
    able, refused = [], {}
    for name, kind in AGENTS.items():
        try:
            _try(kind, batch, game)
            able.append(name)
        except MlbitsError as error:
            refused[name] = str(error)
    return able, refused


def _try(kind: AgentEntry, batch: AnyBatch, game: Game | None) -> None:
    if kind.trainer.endswith("sb3_training") and batch.num_seats > 1:
        raise GameError("Stable-Baselines3's algorithms train in environments of one seat only")
    device = torch.device("cpu")
    kind.make(kind.config_class()(), batch.observation_space, batch.action_space, seed=0, device=device, game=game)


def _about_game(env: str) -> dict[str, str]:
    """The sections of the docstring of the module that defines a game."""
    factory = entry(env).load()
    doc = inspect.cleandoc(sys.modules[factory.__module__].__doc__ or "")
    found = {}
    for match in re.finditer(r"^([A-Z]\w*)(?: \((.*)\))?:\n((?:[ ]{4}.*\n?|\n)+)", doc + "\n", re.M):
        if match[1] in _SECTIONS:
            title = f"{match[1]} ({plain(match[2])})" if match[2] else match[1]
            found[title] = plain(textwrap.dedent(match[3]).strip("\n"))
    return found


def _about_wrapped(batch: Any) -> dict[str, str]:
    """The sections of the docstring of a Gymnasium environment's class, where it has those of Gymnasium's own."""
    doc = inspect.cleandoc(batch.envs[0].unwrapped.__doc__ or "")
    parts = re.split(r"^#+ (.+)$", doc, flags=re.M)
    texts = {title.strip(): text.strip("\n") for title, text in zip(parts[1::2], parts[2::2], strict=True)}
    found = {_THEIRS[title]: text for title, text in texts.items() if title in _THEIRS and text.strip()}
    return found or ({"Description": parts[0].strip()} if parts[0].strip() else {})


def _game_settings(env: str) -> list[dict[str, Any]]:
    factory, defaults = entry(env).load(), entry(env).defaults
    parsed = docstring_parser.parse(factory.__doc__ or "")
    meanings = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in parsed.params}
    hints = typing.get_type_hints(factory)
    return [
        _row(name, defaults.get(name, parameter.default), hints.get(name), meanings.get(name, ""))
        for name, parameter in inspect.signature(factory).parameters.items()
    ]


def _wrapped_settings(env: str) -> list[dict[str, Any]]:
    """The keyword arguments of a Gymnasium environment's constructor; what they mean is said by its own docs."""
    return [_row(name, value, type(value), "") for name, value in constructor_settings(env).items()]


def _config_setting(config: Any, field: dataclasses.Field[Any]) -> dict[str, Any]:
    known = setting_of(field)
    help_texts = {} if known else docstring_parser.parse(config.__doc__ or "").params
    meaning = known.help if known else next((p.description or "" for p in help_texts if p.arg_name == field.name), "")
    row = _row(field.name, field.default, typing.get_type_hints(config)[field.name], meaning)
    return row | {"type": (range_text(config, field) if known else "") or row["type"]}


def _row(name: str, default: Any, hint: Any, meaning: str) -> dict[str, Any]:
    missing = default is inspect.Parameter.empty or default is dataclasses.MISSING
    return {"name": name, "default": None if missing else default, "type": _type(hint), "meaning": plain(meaning)}


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not typing.get_origin(hint) else str(hint).replace("typing.", "")


def _source(made: Any) -> str:
    """The file and line where something is defined, or its module where there is no file."""
    made = inspect.unwrap(made)  # a game's factory has one around it, for frame stacks
    try:
        file, (_, line) = inspect.getsourcefile(made), inspect.getsourcelines(made)
        return f"{file}:{line}"
    except (OSError, TypeError):
        return str(getattr(made, "__module__", made))


def _preset_values(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
    for part in ("agent", "env"):
        flat |= {f"{part}.{name}": value for name, value in values.get(part, {}).items()}
    return [(name, value_text(value, 200)) for name, value in flat.items()]


def _facts(facts: list[tuple[str, str]], width: int) -> list[str]:
    """Names and texts in two columns."""
    indent = max((len(name) for name, _ in facts), default=0) + 2
    lines = []
    for name, text in facts:
        first, *rest = textwrap.wrap(text, max(width - indent - 2, 30), break_on_hyphens=False) or [""]
        lines += [f"  {name:<{indent}}{first}", *(" " * (indent + 2) + more for more in rest)]
    return lines


def _settings_lines(prefix: str, settings: list[dict[str, Any]], width: int) -> list[str]:
    """A heading, and each setting as it is given, with its default, then its meaning and what it may be."""
    if not settings:
        return ["no settings"]
    lines = ["Settings, with their defaults:"]
    for row in settings:
        value = f"{row['default']:_}" if type(row["default"]) is int else value_text(row["default"], 60)
        given = f"{row['name']}={value}" if prefix.endswith("@") else f"{row['name'].replace('_', '-')} {value}"
        lines.append(f"    {prefix}{given}")
        about = "; ".join(part for part in (row["meaning"].rstrip("."), row["type"]) if part)
        lines += textwrap.wrap(about, max(width - 8, 30), initial_indent=" " * 8, subsequent_indent=" " * 8)
    return lines


def _words(kinds: list[str]) -> str:
    return ", ".join(kind.replace("_", "-") for kind in kinds)
