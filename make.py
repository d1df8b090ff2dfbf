"""``make train``, ``make test`` and ``make docs``, also where there is no make: ``python3 make.py train`` and so on.

Makes the environment ``.venv``, installs into it what the command needs, at the versions of constraints.txt, and runs
the command there. What is installed already, from the same files, is not installed again. Further words go to the
command: ``python3 make.py test tests/envs -x``. ``python3 make.py show train`` prints what stands behind it.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = ENVIRONMENT / "mlbits-installed.json"  # what was installed: a hash a target
# What is installed, then what runs for each command.
COMMANDS = {
    "train": (".", ["mlbits", "train", "ppo", "mlbits/GridWorld-v0"]),
    "test": (".[test]", ["pytest", "-n", "auto", "--dist", "loadfile"]),
    "docs": (".[docs]", ["sphinx", "-W", "--keep-going", "docs", "build/docs"]),
}
USAGE = "usage: make.py train|test|docs [WORDS...], or make.py show train|test|docs"


def shown(name):
    """The same as plain commands for a shell."""
    target, words = COMMANDS[name]
    quoted = '"' + target + '"' if "[" in target else target
    install = "pip install -c constraints.txt -e " + quoted
    return "\n".join(["python3 -m venv .venv", ". .venv/bin/activate", install, " ".join(words)])


def fingerprint():
    """A hash of what an install depends on: the files that say what, and where they lie."""
    files = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "setup.py", "constraints.txt")]
    return hashlib.sha256(repr([files, str(ROOT)]).encode()).hexdigest()


def installed():
    """What the environment has, as target and hash; nothing where none works."""
    try:
        return dict(json.loads(STAMP.read_text())) if PYTHON.exists() else {}
    except (OSError, ValueError, TypeError):
        return {}


def works(python):
    """Whether an environment's Python starts, is new enough and has pip."""
    probe = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.call([str(python), "-c", probe], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def run(command):
    """Say a command and run it; its status where it fails ends this script."""
    print("$ " + " ".join(command), flush=True)
    status = subprocess.call(command, cwd=str(ROOT))
    if status:
        sys.exit(status)


def prepare(target):
    """The environment with ``target`` in it."""
    found, wanted = installed(), fingerprint()
    if wanted in (found.get(target), found.get(".[test]")):  # the tests' install has all of the base's
        return
    if not works(PYTHON):
        run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)])
    run([str(PYTHON), "-m", "pip", "install", "-c", "constraints.txt", "-e", target])
    STAMP.write_text(json.dumps(dict(found, **{target: wanted})))


def become(words):
    """Run a command as the activated environment would, in this process's place: it gets the signals itself."""
    print("$ " + " ".join(words), flush=True)
    module = {"mlbits": "mlbits.cli"}.get(words[0], words[0])
    command = [str(PYTHON), "-m", module, *words[1:]]
    path = str(PYTHON.parent) + os.pathsep + os.environ.get("PATH", "")
    # What was installed before is not part of the time that the command reports.
    started = "%d:%f" % (os.getpid(), time.time())  # noqa: UP031  (whoever starts this may have an older Python)
    environment = dict(os.environ, VIRTUAL_ENV=str(ENVIRONMENT), PATH=path, MLBITS_STARTED=started)
    os.chdir(str(ROOT))
    if os.name == "nt":  # where a process cannot be replaced
        sys.exit(subprocess.call(command, env=environment))
    os.execve(command[0], command, environment)


def main(words):
    """Prepare and run; or show."""
    if sys.version_info < (3, 11):  # noqa: UP036  (whoever starts this may have an older one)
        found = sys.version.split()[0] + " (" + sys.executable + ")"
        sys.exit(
            "mlbits needs Python 3.11 or newer; this is " + found + ".\n"
            "With another one: make train PYTHON=python3.12, or python3.12 make.py train"
        )
    if len(words) == 2 and words[0] == "show" and words[1] in COMMANDS:
        print(shown(words[1]))
    elif words and words[0] in COMMANDS:
        target, command = COMMANDS[words[0]]
        prepare(target)
        become([*command, *words[1:]])
    else:
        sys.exit(USAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
