"""What a failed request means, in words, and whether the same request may succeed in a moment."""

from __future__ import annotations

import errno
import socket
import ssl
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

STALL_S = 30.0  # without a byte
LATER = (408, 416, 425, 429, 500, 502, 503, 504)  # statuses that may be another one in a moment
MEANINGS = {401: "asks for a password", 403: "refuses", 404: "no such file there", 410: "no such file there any more"}
NOWHERE = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


class FetchError(Exception):
    """One address does not give the file; its text says why. `passing`: it may give it in a moment."""

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.passing = passing


def explain(error: Exception, address: str) -> FetchError:
    """What an exception of a request to this address means."""
    if isinstance(error, HTTPError):
        return _status(error.code, error.reason, address)
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    text = " ".join(str(error).split()) or type(error).__name__
    proxy = proxy_for(address)
    if "Tunnel connection failed" in text:
        return FetchError(f"the proxy {proxy} refuses ({text.removeprefix('Tunnel connection failed: ')}){_REMEDY}")
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted ({error.verify_message})"
        return FetchError(f"{why}; if this network opens TLS, SSL_CERT_FILE has to name its certificate")
    if isinstance(error, TimeoutError):
        return FetchError(f"no answer for {STALL_S:g} s", passing=True)
    if isinstance(error, socket.gaierror):
        whose = f"the name of the proxy {proxy}" if proxy else "its name"
        return FetchError(f"{whose} is not known here (no network?)")
    if isinstance(error, OSError) and error.errno in NOWHERE:
        whom = f"the proxy {proxy} cannot" if proxy else "cannot"
        return FetchError(f"{whom} be reached ({(error.strerror or text).lower()})")
    if isinstance(error, (OSError, HTTPException)):
        return FetchError(f"the connection broke ({text.lower()})", passing=True)
    return FetchError(f"{type(error).__name__}: {text}")


_REMEDY = "; https_proxy=http://USER:PASSWORD@HOST:PORT names the proxy"


def _status(code: int, reason: str, address: str) -> FetchError:
    if code == 407:
        return FetchError(f"the proxy {proxy_for(address)} refuses (407 {reason}){_REMEDY}")
    return FetchError(f"{code}, {MEANINGS.get(code, str(reason).lower())}", passing=code in LATER)


def proxy_for(address: str) -> str:
    """The proxy that the environment names for this address, as HOST:PORT without its password, or ""."""
    return _proxy(address).netloc.rpartition("@")[2]


def check_proxy(address: str) -> None:
    """Raise `FetchError` for a proxy that does not speak HTTP: the standard library knows no other."""
    if (scheme := _proxy(address).scheme) not in ("", "http", "https"):
        raise FetchError(f"the proxy {proxy_for(address)} is {scheme}; expected an HTTP proxy in https_proxy")


def _proxy(address: str) -> SplitResult:
    parts = urlsplit(address)
    named = getproxies().get(parts.scheme, "")
    if not named or proxy_bypass(parts.netloc):
        return urlsplit("")
    return urlsplit(named if "//" in named else f"//{named}")
