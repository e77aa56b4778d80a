"""Which addresses a socket may bind: one rule for the profile and for the code that opens the socket."""

from __future__ import annotations

import re
from typing import NamedTuple

EXPECTED = "expected an address like tcp://127.0.0.1:5555 or ipc:///run/rtseg/room1"


class Bind(NamedTuple):
    """The parts of a tcp address; `loopback` is None if `host` is a name instead of an IP address."""

    host: str
    port: str
    v6: bool
    loopback: bool | None


def split_bind(bind: str) -> Bind | None:
    """The parts of tcp://HOST:PORT (port 0 or *: a free one); None for any other address."""
    match = re.fullmatch(r"tcp://(\[(?P<v6>[^\]\s]+)\]|(?P<v4>[^:\[\]/\s]+)):(?P<port>\*|[0-9]{1,5})", bind)
    if match is None or (match["port"] != "*" and int(match["port"]) > 65535):
        return None
    import ipaddress  # imported late: it takes 4 ms, which a recording does not need

    host = match["v6"] or match["v4"].replace("localhost", "127.0.0.1")
    try:
        loopback: bool | None = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False if host == "*" else None
    return Bind(host, "*" if match["port"] == "0" else match["port"], bool(match["v6"]), loopback)


def bind_mistake(bind: str, keys: bool) -> str | None:
    """What is wrong with an address to bind, as the end of an error line; None if it is allowed.

    Allowed: ipc:// and a path; tcp on loopback; with CURVE keys any tcp address.
    """
    if bind.startswith("ipc://"):
        name = bind.removeprefix("ipc://")
        if name.startswith(("@", "*")) or not name or "\0" in name:
            return "no file, so no file mode keeps others out; expected ipc:///PATH"
        return None
    parts = split_bind(bind)
    if parts is None:
        return f"{EXPECTED}; correct it"
    if not parts.loopback and not keys:
        return (
            "not loopback, so anyone could watch; expected tcp://127.0.0.1:PORT, or CURVE keys with an allow list; "
            "run: rtseg keys new server, and name the folder as keys under [security]"
        )
    if parts.loopback is None:
        return f"{parts.host!r:.60} is no IP address; expected one; correct it"
    return None
