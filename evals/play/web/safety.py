"""Who may talk to the server: pages that it served itself, and on a network only those who know its token.

Any page on the web can open a socket to this machine, and a name on the web can be made to lead here. So a socket's
``Origin`` has to be the server's own, and ``Host`` a name of this machine; on any other address a token is needed,
which is in the link that the command prints.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store", "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
_OWN = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Gate:
    """Who may come in.

    Attributes:
        host: the address that is served.
        token: the word that is asked for, "" on this machine's own address.
    """

    host: str
    token: str = ""

    def host_refused(self, header: str) -> str:
        """Why a request with this ``Host`` is refused, or ""."""
        name = header.rpartition("]")[0].lstrip("[") if header.startswith("[") else header.partition(":")[0]
        if self.token or name in _OWN or name == self.host:
            return ""  # with a token, whoever has it may use any name of this machine
        return f"Host: got {header[:80]!r}; wanted a name of this machine"

    def token_refused(self, given: str) -> str:
        """Why a request with this token is refused, or ""."""
        if not self.token or hmac.compare_digest(self.token.encode(), given.encode()):
            return ""
        return "this address needs the token of the link that mlbits play printed"

    def origin_refused(self, origin: str, host: str) -> str:
        """Why a socket that a page of this origin opens is refused, or ""."""
        if host and origin in (f"http://{host}", f"https://{host}"):
            return ""
        return f"Origin: got {origin[:80]!r}; wanted the page that this server serves"
