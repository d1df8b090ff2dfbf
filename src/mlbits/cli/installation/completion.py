"""``mlbits completion SHELL``: a script with which bash, zsh or fish complete mlbits' commands.

Commands, agents, environments, bots, flags (of the agent and the environment that are typed) and the choices of flags
are written into the script, so that completing runs no Python; folders of runs are looked for as one types. The script
for bash serves zsh too, through its ``bashcompinit``.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import tyro

from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.selfplay.runs.command_line import flag_names, read_flags
from mlbits.selfplay.runs.config import ConfigError, RunConfig

_HOW = {
    "bash": 'add this to ~/.bashrc: eval "$(mlbits completion bash)"',
    "zsh": 'add this to ~/.zshrc: eval "$(mlbits completion zsh)"',
    "fish": "write this to a file: mlbits completion fish > ~/.config/fish/completions/mlbits.fish",
}
_TRAIN = ("--out", "--preset", "--quiet", "--trust", "--help")
# What the words after a command are: kinds, or the words themselves.
_WORDS: dict[str, tuple[str, ...]] = {
    "train": ("agents",), "meta-train": ("lpg",), "resume": ("runs",), "eval": ("runs",),
    "tournament": ("runs", "bots"), "sweep": ("agents",),
    "exploit": ("runs", "bots"), "play": ("runs", "envs"), "uci": ("runs", "bots"), "solve": ("envs",),
    "check": ("runs",), "plot": ("runs",), "board": ("runs",), "compare": ("runs",), "export": ("runs",),
    "record": ("runs", "envs"), "replay": ("runs", "envs"),
    "list": ("lists",), "reproduce": ("evaluations",), "bench": (), "doctor": (), "data": ("mix", "split"),
    "diplomacy": ("adjudicate", "draw"), "completion": ("bash", "zsh", "fish"),
}  # fmt: skip
_KINDS = ("agents", "envs", "bots", "lists", "evaluations")
_FILES = "--out --json --picture --gif --onnx --torchscript --rule --plot --space --replay --check".split()
# What the values of flags are, where they are no choices.
_VALUES = {"--env": "envs", "--agent": "agents", "--opponents": "bots", "--preset": "envs", "--policy": "bots"}


@configuration(ConfigError)
class CompletionFlags:
    """Print a script that lets a shell complete mlbits' commands, flags, agents, environments and runs."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")] = setting(
        REQUIRED, "bash, zsh or fish"
    )


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(CompletionFlags, "mlbits completion", words)


def command(words: list[str]) -> int:
    """Print the script."""
    shell = parse(words).shell
    print(f"# mlbits' completion for {shell}; {_HOW[shell]}")
    print({"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell](), end="")
    return 0


def flags_of_commands() -> dict[str, list[type]]:
    """The dataclasses of each command's flags."""
    from mlbits.agents.learned_rules.config import MetaLPGConfig
    from mlbits.cli.datasets import data, record
    from mlbits.cli.evaluation import evaluate, reproduce
    from mlbits.cli.installation import bench, doctor, listing
    from mlbits.cli.playing import diplomacy
    from mlbits.cli.runs import board, check, compare, export, plot
    from mlbits.cli.training import meta_train, resume
    from mlbits.evals.exploitability.flags import ExploitFlags
    from mlbits.evals.play.config import PlayFlags, UciFlags
    from mlbits.evals.replays.config import ReplayFlags
    from mlbits.evals.sweep.config import SweepFlags
    from mlbits.evals.tournament.config import TournamentFlags
    from mlbits.selfplay.runs.flags import SolveFlags
    from mlbits.selfplay.runs.job_flags import JobFlags

    return {
        "train": [RunConfig, JobFlags], "meta-train": [meta_train.MetaTrainFlags, MetaLPGConfig, RunConfig],
        "resume": [resume.ResumeFlags], "eval": [evaluate.EvalFlags],
        "sweep": [SweepFlags, RunConfig],
        "tournament": [TournamentFlags], "exploit": [ExploitFlags], "play": [PlayFlags], "uci": [UciFlags],
        "solve": [SolveFlags], "check": [check.CheckFlags], "list": [listing.ListFlags], "bench": [bench.BenchFlags],
        "reproduce": [reproduce.ReproduceFlags], "diplomacy": [diplomacy.AdjudicateFlags, diplomacy.DrawFlags],
        "record": [record.RecordFlags], "replay": [ReplayFlags],
        "data": [data.SummaryFlags, data.MixFlags, data.SplitFlags], "plot": [plot.PlotFlags],
        "board": [board.BoardFlags], "compare": [compare.CompareFlags], "export": [export.ExportFlags],
        "completion": [CompletionFlags], "doctor": [doctor.DoctorFlags],
    }  # fmt: skip


def flags_of(kind: Any, prefix: str = "") -> list[str]:
    """The flags of a dataclass; switches that are on by default as ``--no-NAME``."""
    found = []
    for name, flag in flag_names(kind).items():
        if flag.endswith(".NAME"):
            continue
        flag = flag.replace("--", f"--{prefix}", 1)
        group, dot, last = flag.removeprefix("--").rpartition(".")
        found.append(f"--{group}{dot}no-{last}" if _default(kind, name) is True else flag)
    return found


def _default(kind: Any, name: str) -> Any:
    """The default of a setting; of a part's settings, that of the part's own."""
    for part in name.split("."):
        field = next((field for field in dataclasses.fields(kind) if field.name == part), None)
        if field is None:
            return None
        kind = field.default
    return kind


def choices_of(kind: Any) -> dict[str, list[str]]:
    """The choices of a dataclass's flags that have some."""
    hints, found = typing.get_type_hints(kind, include_extras=False), {}
    for name, flag in flag_names(kind).items():
        hint = hints.get(name)
        if typing.get_origin(hint) is Literal:
            found[flag] = [str(choice) for choice in typing.get_args(hint)]
    return found


def _tables() -> dict[str, dict[str, list[str]]]:
    """All that the scripts know: commands' flags and choices, agents' and environments' flags, names by kind."""
    from mlbits.agents.registry import AGENTS, bot_names
    from mlbits.envs.registry import registered
    from mlbits.evals.registry import EVALS
    from mlbits.selfplay.runs.command_line import signature_fields

    kinds = flags_of_commands()
    flags = {name: [flag for kind in of for flag in flags_of(kind)] + ["--help"] for name, of in kinds.items()}
    for name in ("train", "sweep"):
        flags[name] += [flag for flag in _TRAIN if flag not in flags[name]]
    choices = {
        f"{name} {flag}": some for name, of in kinds.items() for kind in of for flag, some in choices_of(kind).items()
    }
    agents, envs = {}, {}
    for name, entry in AGENTS.items():
        config = entry.config_class()
        agents[name] = flags_of(config, "agent.")
        for flag, some in choices_of(config).items():
            for command in ("train", "sweep"):
                choices[f"{command} {flag.replace('--', '--agent.', 1)}"] = some
    for env, game in registered().items():
        made: Any = dataclasses.make_dataclass("Env", signature_fields(game.load(), defaults=game.defaults))
        envs[env] = flags_of(made, "env.")
    names = {"agents": list(AGENTS), "envs": list(registered()), "bots": bot_names(), "evaluations": list(EVALS)}
    names["lists"] = ["envs", "agents", "presets", "evals"]
    return {"flags": flags, "choices": choices, "agents": agents, "envs": envs, "names": names}


def _case(function: str, table: dict[str, list[str]], word: str = "$1") -> Iterator[str]:
    """A shell function that prints the words of a table for a key."""
    yield f'{function}() {{\n  case "{word}" in'
    for key, words in table.items():
        if words:
            yield f"    '{key}') echo '{' '.join(words)}';;"
    yield "  esac\n}"


def _words_table() -> dict[str, list[str]]:
    return {command: list(words) for command, words in _WORDS.items()}


def bash_script() -> str:
    """The script for bash 3.2 and newer."""
    tables = _tables()
    lines = [
        *_case("_mlbits_flags", tables["flags"]),
        *_case("_mlbits_agent_flags", tables["agents"]),
        *_case("_mlbits_env_flags", tables["envs"]),
        *_case("_mlbits_choices", tables["choices"]),
        *_case("_mlbits_names", tables["names"]),
        *_case("_mlbits_words", _words_table()),
        *_case("_mlbits_value", {flag: [kind] for flag, kind in _VALUES.items()}),
        _BASH.replace("@COMMANDS@", " ".join(_WORDS)).replace("@KINDS@", "|".join(_KINDS)),
    ]
    return "\n".join(lines) + "\n"


def zsh_script() -> str:
    """The script for zsh."""
    return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + bash_script()


_BASH = r"""
_mlbits_runs() {
  local dir
  for dir in "$1"*/ runs/*/; do
    case "$dir" in "$1"*) [ -f "${dir}config.json" ] && echo "${dir%/}";; esac
  done
  compgen -d -- "$1"
}
_mlbits_of_kind() {
  case "$1" in
    runs) _mlbits_runs "$2";;
    @KINDS@) compgen -W "$(_mlbits_names "$1")" -- "$2";;
    *) compgen -W "$1" -- "$2";;
  esac
}
_mlbits() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}" kind found=""
  local IFS=$' \t\n'
  if [ "$COMP_CWORD" -eq 1 ]; then
    found="$(compgen -W "@COMMANDS@" -- "$cur")"
  elif [ "${cur#-}" != "$cur" ]; then
    found="$(_mlbits_flags "$command")"
    if [ "$command" = train ] || [ "$command" = sweep ]; then
      found="$found $(_mlbits_agent_flags "${COMP_WORDS[2]}") $(_mlbits_env_flags "${COMP_WORDS[3]}")"
    elif [ "$command" = solve ] || [ "$command" = play ] || [ "$command" = record ] || [ "$command" = replay ]; then
      found="$found $(_mlbits_env_flags "${COMP_WORDS[2]}")"
    fi
    found="$(compgen -W "$found" -- "$cur")"
  elif [ "${prev#--}" != "$prev" ]; then
    found="$(_mlbits_choices "$command $prev")"
    kind="$(_mlbits_value "$prev")"
    if [ -n "$found" ]; then
      found="$(compgen -W "$found" -- "$cur")"
    elif [ -n "$kind" ]; then
      found="$(_mlbits_of_kind "$kind" "$cur")"
    else
      found="$(compgen -f -- "$cur")"
    fi
  elif { [ "$command" = train ] || [ "$command" = sweep ]; } && [ "$COMP_CWORD" -ge 3 ]; then
    [ "$COMP_CWORD" -eq 3 ] && found="$(_mlbits_of_kind envs "$cur")"
  else
    for kind in $(_mlbits_words "$command"); do
      found="$found
$(_mlbits_of_kind "$kind" "$cur")"
    done
  fi
  IFS=$'\n'
  COMPREPLY=($(echo "$found" | sed '/^$/d' | sort -u))
}
complete -o filenames -F _mlbits mlbits"""


def fish_script() -> str:
    """The script for fish."""
    tables = _tables()
    lines = [_FISH]
    lines += [_fish_line("__fish_use_subcommand", f"-a '{' '.join(_WORDS)}'")]
    for command, kinds in _WORDS.items():
        if command in ("train", "sweep"):
            lines += [_fish_line(f"__mlbits_at {command} 2", f"-a '{' '.join(tables['names']['agents'])}'")]
            lines += [_fish_line(f"__mlbits_at {command} 3", f"-a '{' '.join(tables['names']['envs'])}'")]
            continue
        here = f"__fish_seen_subcommand_from {command}"
        for kind in kinds:
            words = "(__mlbits_runs)" if kind == "runs" else " ".join(tables["names"].get(kind, [kind]))
            lines.append(_fish_line(here, f"-a '{words}'"))
    for command, flags in tables["flags"].items():
        for flag in flags:
            given = _fish_values(tables, command, flag)
            lines.append(_fish_line(f"__fish_seen_subcommand_from {command}", f"-l '{flag[2:]}'{given}"))
    for part, place in (("agents", 3), ("envs", 4)):
        for name, flags in tables[part].items():
            for flag in flags:
                here = f"__mlbits_trains {place} {name}"
                lines.append(_fish_line(here, f"-l '{flag[2:]}'{_fish_values(tables, 'train', flag)}"))
    return "\n".join(lines) + "\n"


def _fish_line(condition: str, rest: str) -> str:
    files = "" if rest.endswith(" -F") else " -f"
    return f"complete -c mlbits{files} -n '{condition}' {rest}"


def _fish_values(tables: dict[str, dict[str, list[str]]], command: str, flag: str) -> str:
    """What follows a flag: choices, names, or, for what may be a file, files."""
    some: Sequence[str] = tables["choices"].get(f"{command} {flag}", [])
    if kind := _VALUES.get(flag):
        some = tables["names"][kind]
    if some:
        return f" -x -a '{' '.join(some)}'"
    return " -r -F" if flag in _FILES else ""


_FISH = r"""function __mlbits_at
    set -l words (commandline -opc)
    test (count $words) -eq $argv[2]; and test "$words[2]" = $argv[1]
end
function __mlbits_trains
    set -l words (commandline -opc)
    test (count $words) -ge $argv[1]; and contains -- "$words[2]" train sweep; and test "$words[$argv[1]]" = $argv[2]
end
function __mlbits_runs
    for file in */config.json runs/*/config.json
        dirname $file
    end
    __fish_complete_directories (commandline -ct) ''
end"""
