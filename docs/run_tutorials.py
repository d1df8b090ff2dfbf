"""Run the tutorials as a reader would, and keep the pictures they make: ``python docs/run_tutorials.py [NAME ...]``.

A page's code is run from top to bottom in an empty folder: Python in one session (a block that begins with the name of
a file, as ``# pig.py``, is that file), and the commands of ``mlbits``. The pictures replace those in
``docs/tutorials``. Tests run the same in a short form, with a few hundred steps in place of many thousands.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlbits import cli

FOLDER = Path(__file__).parent / "tutorials"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)
WAITING = ("board", "play")  # commands that wait for somebody; whether they parse is tested
# What makes the short form short: a setting on the command line and in Python, and the most that it may be.
LIMITS = {"total_steps": 600, "eval_every": 300, "seeds": 2, "episodes": 10, "eval_episodes": 3}


def main() -> None:
    """Run the pages named on the command line, or all."""
    for name in sys.argv[1:] or sorted(page.stem for page in FOLDER.glob("*.md") if page.stem != "index"):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            sys.path.insert(0, folder)
            run((FOLDER / f"{name}.md").read_text(encoding="utf-8"))
            for picture in Path(folder).glob("*.png"):
                (FOLDER / picture.name).write_bytes(picture.read_bytes())
                print(f"picture: {FOLDER / picture.name}")
            sys.path.remove(folder)


def run(text: str) -> None:
    """Run a page's code in the working folder.

    Raises:
        SystemExit: if a command fails; whatever the Python code raises.
    """
    session: dict[str, Any] = {}
    for language, block in BLOCK.findall(text):
        if language == "sh":
            for line in block.splitlines():
                run_command(shlex.split(line, comments=True))
        elif file := re.match(r"# (\w+\.py)\n", block):
            Path(file[1]).write_text(block, encoding="utf-8")
        else:
            print(f">>> {block}", flush=True)
            exec(compile(block, "tutorial", "exec"), session)


def run_command(words: list[str]) -> None:
    """Run a command of mlbits; others, and those that wait for somebody, are passed over."""
    if words[:1] != ["mlbits"] or words[1] in WAITING:
        return
    print(f"$ {shlex.join(words)}", flush=True)
    if status := cli.main(words[1:]):
        raise SystemExit(f"{shlex.join(words)}: exit status {status}, in {Path.cwd()}")


def shortened(text: str) -> str:
    """A page with small numbers of steps, seeds and episodes."""
    for name, most in LIMITS.items():
        flag = name.replace("_", "-")

        def limited(found: re.Match[str], most: int = most) -> str:
            return f"{found[1]}{min(int(found[2].replace('_', '')), most)}"

        text = re.sub(rf"((?:--{flag} |\b{name}=))([\d_]+)", limited, text)
    return text


if __name__ == "__main__":
    main()
