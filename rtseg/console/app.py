"""The ASGI application: the page, its WebSocket, and the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from mimetypes import guess_type
from typing import Any

from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..base.errors import OutputError, RtsegError
from . import messages, openapi
from .access import Identity
from .feed import Feed
from .guard import Guard
from .hub import Hub
from .orders import OPEN_TO_VIEWERS
from .still import picture_of
from .viewers import Viewer

_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_BODY_S = 10.0
Handler = Callable[[Request], Awaitable[Response]]


def make_app(hub: Hub) -> Starlette:
    """The application of one console. Its lifespan connects to the feeds."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await hub.start()
        try:
            yield
        finally:
            await hub.close()

    async def websocket(socket: WebSocket) -> None:
        await Viewer(socket, hub).serve()

    api = _Api(hub)
    routes = [
        Route("/", _page("index.html")),
        Route("/page/{name}", _page(None)),
        WebSocketRoute("/ws", websocket),
        Route("/api/openapi.json", api.schema),
        Route("/api/docs", _docs),
        Route("/api/feeds", api.feeds),
        Route("/api/feeds/{feed}", api.feed),
        Route("/api/feeds/{feed}/snapshot", api.snapshot),
        Route("/api/feeds/{feed}/orders", api.orders, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        HTTPException: _failed,
        RtsegError: _refused,
        ClientDisconnect: _gone,
        TimeoutError: _gone,
    }
    return Starlette(
        routes=routes, middleware=[Middleware(Guard, hub=hub)], exception_handlers=handlers, lifespan=lifespan
    )


class _Api:
    """The HTTP API."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def schema(self, _: Request) -> Response:
        return JSONResponse(openapi.document())

    async def feeds(self, request: Request) -> Response:
        self._identity(request)
        feeds = [{**_plain(feed.title), "link": feed.link, **_state(feed)} for feed in self._hub.feeds.values()]
        return JSONResponse({"feeds": feeds, "viewers": self._hub.viewers, "refused": self._hub.refusals.counts})

    async def feed(self, request: Request) -> Response:
        self._identity(request)
        return _json(self._feed(request).status_message)

    async def snapshot(self, request: Request) -> Response:
        identity, feed = self._identity(request), self._feed(request)
        kind = request.query_params.get("format", "png")
        if kind not in ("png", "coco"):
            raise OutputError(f"format = {kind!r:.20}; expected png or coco")
        with_masks = request.query_params.get("masks", "0") not in ("0", "")
        seq = request.query_params.get("seq")
        args: dict[str, Any] = {}
        if seq is not None:
            if not seq.isdecimal() or len(seq) > 18:
                raise OutputError(f"seq = {seq!r:.20}; expected a whole number")
            args["seq"] = int(seq)
        order = messages.Order(n=1, feed=feed.name, verb="snapshot", args=args)
        answer = await self._hub.orders.do(feed, order, identity, _address(request))
        if not answer.ok or not isinstance(answer.result, dict):
            raise OutputError(str(answer.error))
        return await picture_of(answer.result, feed.stream or feed.name, kind, with_masks, _looks(feed))

    async def orders(self, request: Request) -> Response:
        identity, feed = self._identity(request), self._feed(request)
        async with asyncio.timeout(_BODY_S):
            body = await request.body()
        order = messages.parse_order(body, feed.name)
        if identity.right != "pointer" and order.verb not in OPEN_TO_VIEWERS:
            self._hub.refusals.note("right", _address(request), f"{identity.name or 'a viewer'} ordered {order.verb}")
            raise HTTPException(403, f"{order.verb}: this token may watch, not point")
        answer = await self._hub.orders.do(feed, order, identity, _address(request))
        return _json(answer, 200 if answer.ok else 409)

    def _identity(self, request: Request) -> Identity:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        identity = self._hub.tokens.identity(token.strip() if kind.lower() == "bearer" else None)
        if identity is None:
            why = "no token that is known here; expected Authorization: Bearer TOKEN"
            self._hub.refusals.note("token", _address(request), f"{request.url.path:.80}: {why}")
            raise HTTPException(401, why, {"WWW-Authenticate": "Bearer"})
        return identity

    def _feed(self, request: Request) -> Feed:
        name = request.path_params["feed"]
        if name not in self._hub.feeds:
            raise HTTPException(404, f"no feed {name!r:.60}; expected one of: {', '.join(self._hub.feeds)}")
        return self._hub.feeds[name]


def _page(name: str | None) -> Handler:
    folder = files("rtseg.console") / "page"

    async def page(request: Request) -> Response:
        wanted = name or request.path_params["name"]
        file = folder / wanted
        if "/" in wanted or wanted.startswith(".") or not file.is_file():
            raise HTTPException(404, f"no page {wanted!r:.60}")
        kind = _KINDS.get(f".{wanted.rpartition('.')[2]}") or guess_type(wanted)[0] or "application/octet-stream"
        return Response(file.read_bytes(), media_type=kind)

    return page


async def _docs(_: Request) -> Response:
    return Response(openapi.page(), media_type="text/html")


def _state(feed: Feed) -> dict[str, Any]:
    return {"state": feed.status.get("state"), "objects": feed.status.get("objects", [])}


def _looks(feed: Feed) -> dict[int, dict[str, Any]]:
    """How people chose that objects are drawn: `color` and `hidden` by id."""
    return {thing["id"]: thing for thing in feed.status.get("objects") or () if isinstance(thing.get("id"), int)}


def _plain(message: Struct) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def _json(message: Struct, status: int = 200) -> Response:
    return Response(messages.text(message), status, media_type="application/json")


def _address(request: Request) -> str:
    return request.client.host if request.client else "?"


async def _failed(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _refused(_: Request, error: RtsegError) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _gone(_: Request, __: Exception) -> Response:
    return JSONResponse(
        {"error": f"a body that broke off, came too slowly, or has more than {messages.MAX_BYTES} bytes"}, 413
    )
