"""A run in progress: its parts (session.py), how they are opened (opening.py), how far it is (counters.py)."""

from mlbits.selfplay.session.counters import Counters
from mlbits.selfplay.session.opening import make_replay, open_session
from mlbits.selfplay.session.session import FOREIGN, Measure, Measured, Session

__all__ = ["FOREIGN", "Counters", "Measure", "Measured", "Session", "make_replay", "open_session"]
