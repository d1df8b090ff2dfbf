"""Text from files as it may be printed: what a terminal would obey, or what would hide letters, is escaped."""

from __future__ import annotations

import unicodedata

# Control characters (escape sequences begin with one), marks of direction and other invisible ones, line separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: str, keep: str = "") -> str:
    r"""The text with what is not to be printed as it is written as in Python.

    Args:
        text: any text.
        keep: control characters that stay, such as ``"\n"``.

    >>> printable("red \x1b[31m alert\n")
    'red \\x1b[31m alert\\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode("ascii")
        if one not in keep and unicodedata.category(one) in _HIDDEN
        else one
        for one in text
    )
