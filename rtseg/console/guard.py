"""Stands before every request: whether it is meant for us, small enough and not too frequent; headers of each answer.

It is ASGI middleware. A request is refused with a status and one line of JSON, and the refusal is counted.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Buckets, is_same_origin
from .hub import Hub
from .messages import MAX_BYTES

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
_REQUESTS_A_SECOND, _REQUESTS_AT_ONCE = 50.0, 200.0  # of one address
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "via")
_SAFE = ("GET", "HEAD")


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app, self._hub = app, hub
        self._rates = Buckets(_REQUESTS_A_SECOND, _REQUESTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else "?"
        refused = self._refusal(scope, address)
        if refused is not None:
            status, cause, why = refused
            self._hub.refusals.note(cause, address, f"{scope['path']:.80}: {why}")
            await JSONResponse({"error": why}, status, HEADERS)(scope, receive, send)
            return
        await self._app(scope, _limited(receive), _headed(send))

    def _refusal(self, scope: Scope, address: str) -> tuple[int, str, str] | None:
        """Status, cause and reason, if the request is refused."""
        headers = Headers(scope=scope)
        if not self._rates.take(address):
            return 429, "rate", f"too many requests; expected at most {_REQUESTS_A_SECOND:g} a second"
        host, origin = headers.get("host", ""), headers.get("origin")
        if len(headers.getlist("host")) != 1 or not self._hub.hosts.knows(host):
            return 403, "host", f"Host {host!r:.80}: not a name of this console; expected one given by --host"
        if self._hub.tokens.open and any(name in headers for name in _FORWARDED):
            return 403, "proxy", "came through a proxy, where everyone may point; expected --token FILE"
        if origin is not None and not is_same_origin(origin, host):
            return 403, "origin", f"Origin {origin!r:.80}: another page; expected the console's own"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_visit(scope, headers):
            return 403, "origin", "a request of another page; expected the console's own"
        if scope["type"] == "http" and scope["method"] not in _SAFE:
            return _body_refusal(headers)
        return None


def _is_visit(scope: Scope, headers: Headers) -> bool:
    """Whether somebody followed a link to the page, which another page may have."""
    return scope["type"] == "http" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"


def _body_refusal(headers: Headers) -> tuple[int, str, str] | None:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > MAX_BYTES:
        return 413, "size", f"a body of {length:.20} bytes; expected at most {MAX_BYTES}"
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return 415, "type", "expected Content-Type: application/json"
    return None


def _limited(receive: Receive) -> Receive:
    """The messages of a request; a body beyond the limit ends it, whatever length was announced."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > MAX_BYTES:
                return {"type": "http.disconnect"}
        return message

    return limited


def _headed(send: Send) -> Send:
    async def headed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()),
                *((key.lower().encode(), value.encode()) for key, value in HEADERS.items()),
            ]
        await send(message)

    return headed
