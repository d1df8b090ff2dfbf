"""The command line: ``mlbits train | resume | eval | tournament | exploit | solve | check | list | bench | ...``.

Each command's flags come from the same typed dataclasses that the library uses, so an error names the right flag.
Errors are printed as one line, with exit status 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from mlbits.cli.datasets import data, record
from mlbits.cli.evaluation import evaluate, exploit, reproduce, solve, tournament
from mlbits.cli.installation import bench, completion, doctor, listing
from mlbits.cli.playing import diplomacy, play, replay, uci
from mlbits.cli.runs import board, check, compare, export, plot
from mlbits.cli.training import meta_train, resume, sweep, train
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.envs.core.printing import printable
from mlbits.envs.registry import plain_id
from mlbits.selfplay.interrupts import closed_pipe_status, interrupted_status
from mlbits.selfplay.runs.command_line import forget_flags, in_flags
from mlbits.version import __version__

_LONGEST = 2000
USAGE = f"""mlbits {__version__}: reinforcement-learning environments and agents

usage:
  mlbits train AGENT ENV [flags]   train an agent (mlbits train ppo mlbits/GridWorld-v0)
  mlbits meta-train lpg [flags]    train an update rule, by which agents then learn (mlbits train lpg ENV)
  mlbits resume RUN [flags]        continue an interrupted run
  mlbits eval RUN [flags]          play episodes with a trained agent: mean, 95% interval, a GIF
  mlbits eval RUN --opponents BOT  the agent in one seat, a bot or another run in the others
  mlbits eval MODEL.zip ENV        the same with a model that Stable-Baselines3 saved
  mlbits tournament RUN... [BOT..] agents against each other: payoff matrix, Elo, alpha-rank, Nash mixture
  mlbits sweep AGENT ENV [flags]   search for good settings: --space FILE.toml --trials N
  mlbits exploit RUN [flags]       what a best response to an agent gains: exact, or a trained lower bound
  mlbits plot RUN ... [flags]      draw the curves of runs, with 95% intervals over seeds
  mlbits board [RUN ...]           TensorBoard, opened on the returns: runs by name, means over seeds
  mlbits compare RUN RUN ...       runs beside each other: settings that differ, results, speed
  mlbits export RUN --onnx FILE    the agent as a model that plays without mlbits (ONNX, TorchScript)
  mlbits export RUN --rule FILE    the rule of a run of meta-training, from its newest checkpoint
  mlbits play GAME|RUN [flags]     play against a bot or a trained agent, with undo and hints; --web in a page
  mlbits replay RUN|ENV --out PAGE a game as one page to step through; --check PAGE plays it again by the rules
  mlbits uci [RUN|BOT]             a chess engine for chess programs (UCI)
  mlbits solve ENV [flags]         the exact optimum of a small environment, by dynamic programming
  mlbits check RUN|TABLE|GAMES ... whether saved files are whole, and what can still be used
  mlbits list [WHAT]               environments, agents, presets and evaluations
  mlbits list --env ID|--agent A   all about one: spaces, settings, rewards, presets, optimum
  mlbits bench [GROUP] [flags]     speed on this machine, beside other libraries
  mlbits doctor [flags]            what is installed here, whether it works, and what is slow and why
  mlbits reproduce NAME [flags]    repeat a published result or one of ours
  mlbits record RUN|ENV [flags]    play episodes and write them to a dataset (Minari)
  mlbits data DATASET [flags]      describe a dataset; mlbits data mix and split make new ones
  mlbits diplomacy adjudicate FILE adjudicate the Diplomacy positions of a file and compare the results
  mlbits diplomacy draw FILE       draw a saved Diplomacy game: --out game.html, .gif, .png or .svg
  mlbits completion bash|zsh|fish  a script with which the shell completes commands, flags, names and runs

Every command takes --help; "mlbits train AGENT ENV --help" shows all settings of that pair with their values.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``mlbits``; None takes those of the process.

    Returns:
        The exit status: 0; 1 where a reproduction missed its target, a test vector differs, a file is damaged or
        ``doctor`` finds something broken; 2 for an error or numbers that are not finite; when stopped from outside
        130 (Ctrl-C), 143 (SIGTERM, while a run is under way), 129 (SIGHUP) or 141 (a closed pipe).
    """
    words = [plain_id(word) for word in (sys.argv[1:] if argv is None else argv)]
    forget_flags()
    try:
        try:
            status = _run(words)
        except SystemExit as stop:  # tyro's, after --help
            status = int(stop.code or 0)
        sys.stdout.flush()  # here, where a closed pipe can still be handled
        return status
    except MlbitsError as error:
        print(f"error: {_shown(in_flags(str(error)))}", file=sys.stderr)
        return 2
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        said = f"not enough memory{why}; wanted fewer copies (num_envs) or steps (num_steps)"
        print(f"error: {in_flags(said)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return closed_pipe_status()
    except OSError as error:  # a full disk, a folder without permission: what was saved before is intact
        where = f": {error.filename}" if error.filename else ""
        print(printable(f"error: {error.strerror or error}{where}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return interrupted_status(stop, words)


def _shown(text: str) -> str:
    """An error as one line of printable text; what a file put into it may be long."""
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"mlbits {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise UnknownIdError("command", words[0], COMMANDS)
    return COMMANDS[words[0]](words[1:])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train.command,
    "meta-train": meta_train.command,
    "resume": resume.command,
    "eval": evaluate.command,
    "tournament": tournament.command,
    "sweep": sweep.command,
    "exploit": exploit.command,
    "play": play.command,
    "uci": uci.command,
    "plot": plot.command,
    "board": board.command,
    "compare": compare.command,
    "export": export.command,
    "solve": solve.command,
    "check": check.command,
    "list": listing.command,
    "bench": bench.command,
    "doctor": doctor.command,
    "reproduce": reproduce.command,
    "diplomacy": diplomacy.command,
    "record": record.command,
    "replay": replay.command,
    "data": data.command,
    "completion": completion.command,
}
