"""Who may do what: tokens and rights, the addresses that a browser may use, and limits of rate and number.

Whatever is refused is counted by cause, and named in the log.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import socket
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..base.errors import ConfigError
from ..base.prompt_schema import MAX_LABEL
from .messages import Right

log = logging.getLogger("rtseg.console")
_LEAST_TOKEN = 16  # characters
_MOST_TOKENS, _MAX_FILE = 256, 1 << 16
_LOCAL = ("localhost", "127.0.0.1", "::1")
_NEW = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who may watch, or point too. `key` tells holders of tokens apart, without their tokens."""

    right: Right
    name: str | None = None
    key: str = ""


ANYBODY = Identity("pointer")  # without a token file, on loopback


def read_tokens(path: Path) -> dict[str, Identity]:
    """The identities in a token file, by the SHA-256 of their tokens.

    A line is `viewer TOKEN [NAME]` or `pointer TOKEN [NAME]`; empty lines and those that begin with # say nothing.

    Raises:
        ConfigError: the file cannot be read, others may read it, or a line is wrong. A token is never shown.
    """
    try:
        with path.open("rb") as file:
            mode, body = stat.S_IMODE(path.stat().st_mode), file.read(_MAX_FILE + 1)
        lines = body.decode().splitlines()
    except (OSError, UnicodeError) as e:
        why = (getattr(e, "strerror", None) or "not UTF-8").lower()
        raise ConfigError(f"{path}: {why}; expected a token file, lines like: pointer TOKEN NAME") from e
    if mode & 0o077:
        raise ConfigError(f"{path}: others may read it (mode {mode:03o}); expected 600; run: chmod 600 {path}")
    if len(body) > _MAX_FILE:
        raise ConfigError(f"{path}: over {_MAX_FILE} bytes; expected a token file, lines like: pointer TOKEN NAME")
    found: dict[str, Identity] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            key, identity = _read_line(line, f"{path}: line {number}")
            if key in found:
                raise ConfigError(f"{path}: line {number}: a token that is there already; expected one for each person")
            found[key] = identity
    if not found or len(found) > _MOST_TOKENS:
        raise ConfigError(f"{path}: {len(found)} tokens; expected 1 to {_MOST_TOKENS}, lines like: pointer TOKEN NAME")
    return found


def _read_line(line: str, where: str) -> tuple[str, Identity]:
    right, token, name = (*line.split(maxsplit=2), "", "", "")[:3]
    if right not in ("viewer", "pointer"):
        raise ConfigError(f"{where}: begins with neither viewer nor pointer; expected: pointer TOKEN NAME")
    if not _LEAST_TOKEN <= len(token) <= 256 or not token.isascii():
        raise ConfigError(
            f"{where}: a token of {len(token)} characters; expected {_LEAST_TOKEN} to 256 of ASCII; {_NEW}"
        )
    name = name.strip()
    if len(name) > MAX_LABEL or not name.isprintable():
        raise ConfigError(f"{where}: a name of {len(name)} characters; expected one printable line of {MAX_LABEL}")
    key = _hash(token)
    return key, Identity("viewer" if right == "viewer" else "pointer", name or None, key[:16])


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class Tokens:
    """The tokens of a file, read again when it changes. While it cannot be read, nobody is let in."""

    def __init__(self, path: Path | None) -> None:
        """`path`: the token file, or None: everyone is a pointer. `ConfigError` if it is wrong."""
        self._path = path
        self._known = {} if path is None else read_tokens(path)
        self._stamp = self._stamped()

    @property
    def open(self) -> bool:
        """Whether there is no token file, and everyone is a pointer."""
        return self._path is None

    def identity(self, token: str | None) -> Identity | None:
        """Whose token it is; None if nobody's."""
        if self._path is None:
            return ANYBODY
        given, found = _hash(token or ""), None
        for key, identity in self._known.items():  # all of them: the time tells nothing
            if hmac.compare_digest(key, given):
                found = identity
        return found

    def is_valid(self, identity: Identity) -> bool:
        """Whether somebody who was let in still may be here."""
        return self._path is None or identity in self._known.values()

    def reread(self) -> None:
        """Look whether the file has changed."""
        stamp = self._stamped()
        if self._path is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = read_tokens(self._path)
        except ConfigError as e:
            self._known = {}
            log.warning("nobody is let in: %s", e)

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ino, found.st_mode) if found else None


class Bucket:
    """Lets `rate` things a second through, and up to `burst` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self) -> bool:
        """Whether another one may pass now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Buckets:
    """A bucket for each address; those of the addresses that were heard last."""

    def __init__(self, rate: float, burst: float, most: int = 1024) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._each: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether another request of this address may pass now."""
        bucket = self._each.pop(address, None) or Bucket(self._rate, self._burst)
        self._each[address] = bucket
        if len(self._each) > self._most:
            self._each.popitem(last=False)
        return bucket.take()


class Refusals:
    """Counts what was refused, by cause, and names it in the log: at most a few lines a second."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lines = Bucket(2, 20)
        self._unsaid = 0

    def note(self, cause: str, address: str, text: str) -> None:
        """Something was refused. `cause` is one of a few words; `text` says what."""
        self.counts[cause] += 1
        if not self._lines.take():
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} more that are not named)" if self._unsaid else ""
        self._unsaid = 0
        log.warning("refused %s: %s: %.200s%s", address, cause, ascii(text)[1:-1], more)


class Hosts:
    """The names under which the console may be called: no page can reach it by a name of its own (DNS rebinding)."""

    def __init__(self, bound: str, more: Collection[str] = ()) -> None:
        """`bound`: the host that is bound; `more`: names given by the user, such as that of a reverse proxy."""
        self._names = {*_LOCAL, bound.lower(), *(name.lower() for name in more)}
        self._any_address = bound in ("0.0.0.0", "::", "")
        if not is_loopback(bound):
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local"}

    def knows(self, host: str) -> bool:
        """Whether a request's Host is one of ours; its port does not matter, for an SSH tunnel has another."""
        name = _hostname(host)
        return name in self._names or (self._any_address and _is_address(name))


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an Origin is the page that this Host serves. Behind a proxy the scheme may differ."""
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
