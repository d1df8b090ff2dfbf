"""Whether files may run code of their authors: no, unless the user says so with ``--trust`` or :func:`trusting_files`.

Only pickles ask for it: what in Stable-Baselines3's models and ``VecNormalize`` files cannot be read in another way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from mlbits.envs.core.errors import MlbitsError

TRUST_HELP = "read files that run code of their authors: SB3's models with parts of their own, and VecNormalize files"

_trusting: ContextVar[bool] = ContextVar("trusting", default=False)


class NeedsTrust(MlbitsError, RuntimeError):
    """A file that can be read only by unpickling, which runs what its author wrote."""


@contextlib.contextmanager
def trusting_files(yes: bool = True) -> Iterator[None]:
    """While this lasts, pickles may be read, which run code of their authors.

    Args:
        yes: False changes nothing.

    Example:
        with mlbits.trusting_files():
            mlbits.train("ppo", "mlbits/Blotto-v0", opponents=("mine.zip",))
    """
    before = _trusting.set(yes or _trusting.get())
    try:
        yield
    finally:
        _trusting.reset(before)


def trusted() -> bool:
    """Whether pickles may be read now."""
    return _trusting.get()


def needs_trust(path: object, what: str) -> NeedsTrust:
    """The error for a pickle.

    Args:
        path: the file.
        what: what in it is pickled, as in "its statistics".
    """
    return NeedsTrust(
        f"{path}: {what} can only be unpickled, which runs whatever its author wrote; wanted --trust if you trust them "
        "(in Python: mlbits.trusting_files())"
    )


def check_trust(path: object, what: str) -> None:
    """Refuse a pickle unless files are trusted.

    Raises:
        NeedsTrust: unless within :func:`trusting_files`.
    """
    if not trusted():
        raise needs_trust(path, what)
