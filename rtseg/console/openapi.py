"""The OpenAPI document of the HTTP API, made of the messages themselves, and the page that shows it."""

from __future__ import annotations

import html
from typing import Any

import msgspec

from .. import __version__
from . import messages

_REF = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    kinds = (messages.Status, messages.FeedName, messages.Answer, messages.Order)
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    _, received = msgspec.json.schema_components((messages.Received,), ref_template=_REF)
    _, sent = msgspec.json.schema_components((messages.Sent,), ref_template=_REF)
    schemas = {**schemas, **received, **sent, "Error": _ERROR}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rtseg console", "version": __version__, "description": _ABOUT},
        "paths": _PATHS,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}],
    }


def page() -> str:
    """The document as a page of plain HTML, which asks nobody for anything."""
    rows = "".join(
        f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}</p>"
        f"{_list(operation)}"
        for path, methods in _PATHS.items()
        for method, operation in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>rtseg console: API</title></head><body>'
        f'<main><h1>rtseg console: HTTP API</h1><p>{html.escape(_ABOUT)}</p><p><a href="/api/openapi.json">'
        f"openapi.json</a></p>{rows}</main></body></html>"
    )


def _list(operation: dict[str, Any]) -> str:
    asked = [f"{one['name']}: {one['description']}" for one in operation.get("parameters", ())]
    given = [f"{status}: {answer['description']}" for status, answer in operation["responses"].items()]
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in [*asked, *given]) + "</ul>"


def _answer(text: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(name=name)}


_ABOUT = (
    "State, objects, snapshots and orders of the feeds of one console. With a token file every request needs "
    "Authorization: Bearer TOKEN. Pictures and masks as they come: the WebSocket /ws, whose messages are among the "
    "schemas. For research only; not a medical device."
)
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_NAME = {
    "name": "feed",
    "in": "path",
    "required": True,
    "description": "a feed's name, of /api/feeds",
    "schema": {"type": "string"},
}
_WRONG = {
    "401": _answer("the token is missing or not known", _ref("Error")),
    "404": _answer("no such feed", _ref("Error")),
    "429": _answer("too many requests", _ref("Error")),
}
_QUERY = (
    ("format", "png (the default) or coco", {"type": "string", "enum": ["png", "coco"]}),
    ("masks", "1: the masks are drawn on the PNG", {"type": "integer", "enum": [0, 1]}),
    ("seq", "the frame, one of the latest 64; without it, the newest", {"type": "integer"}),
)
_FEEDS = {
    "type": "object",
    "properties": {
        "feeds": {"type": "array", "items": _ref("FeedName")},
        "viewers": {"type": "integer"},
        "refused": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
}
_PATHS: dict[str, dict[str, Any]] = {
    "/api/feeds": {
        "get": {
            "summary": "All feeds: state and objects of each.",
            "responses": {"200": _answer("the feeds", _FEEDS), "401": _WRONG["401"], "429": _WRONG["429"]},
        }
    },
    "/api/feeds/{feed}": {
        "get": {
            "summary": "The newest status of a feed, and how old it is.",
            "parameters": [_NAME],
            "responses": {"200": _answer("the status", _ref("Status")), **_WRONG},
        }
    },
    "/api/feeds/{feed}/snapshot": {
        "get": {
            "summary": "A frame: its picture, or its masks.",
            "parameters": [
                _NAME,
                *({"name": name, "in": "query", "description": text, "schema": kind} for name, text, kind in _QUERY),
            ],
            "responses": {
                "200": _answer("the picture, or a COCO document", {"type": "string"}, "image/png"),
                "400": _answer("why there is none", _ref("Error")),
                **_WRONG,
            },
        }
    },
    "/api/feeds/{feed}/orders": {
        "post": {
            "summary": "An order: add, correct, remove, rename, look, undo, redo, reset, pause, resume, set, preview, "
            "memory, snapshot. It needs the right to point. With client and n it is done once, however often it comes.",
            "parameters": [_NAME],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Order")}}},
            "responses": {
                "200": _answer("it was done", _ref("Answer")),
                "400": _answer("it is malformed", _ref("Error")),
                "403": _answer("this token may watch, not point", _ref("Error")),
                "409": _answer("it was not done; the error says why", _ref("Answer")),
                **_WRONG,
            },
        }
    },
}
