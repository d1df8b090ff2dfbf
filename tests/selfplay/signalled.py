"""``mlbits`` in a process that gets real signals at named moments.

python -m tests.selfplay.signalled MOMENT COUNT SIGNALS train ppo ...: at the COUNT-th occurrence of the moment each of
SIGNALS (as in SIGINT,SIGTERM) is sent to the process itself.
"""

import os
import signal
import sys

from mlbits.agents.ppo import PPO
from mlbits.cli import main
from mlbits.selfplay import bookkeeping, session
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.session import opening
from tests.games import register_test_games
from tests.selfplay.killed import Moment

MOMENTS = {
    "collecting": (Collector, "_act"),  # in the middle of a rollout
    "learning": (session.Session, "learn"),
    "evaluating": (bookkeeping, "play_episodes"),
    "saving": (checkpoints, "write_tensors"),
    "opening": (opening, "open_batch"),  # before there is a run: where a game's rules are compiled
    "finishing": (bookkeeping, "write_summary"),
    "ppo": (PPO, "learn"),
}


def arrange(name, count, numbers):
    moment, (owner, function) = Moment(count), MOMENTS[name]
    original = getattr(owner, function)

    def wrapped(*arguments, **settings):
        if moment.now():
            for number in numbers:
                os.kill(os.getpid(), number)
                # The kernel has delivered it by now, and Python's handler runs within a few instructions.
                for _ in range(1000):
                    pass
        return original(*arguments, **settings)

    setattr(owner, function, wrapped)


if __name__ == "__main__":
    register_test_games()
    arrange(sys.argv[1], int(sys.argv[2]), [getattr(signal, name) for name in sys.argv[3].split(",")])
    sys.exit(main(sys.argv[4:]))
