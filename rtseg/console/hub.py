"""What all connections share: feeds, tokens, orders, and the clock by which statuses are told again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from .. import __version__
from . import messages
from .access import Hosts, Identity, Refusals, Tokens
from .feed import Feed
from .messages import Link
from .orders import Orders

VIEWERS: Final = 64  # connections at once, those without a hello included
_AGAIN_S, _LINK_S = 0.4, 0.1  # a status is told at least twice a second; that a feed is gone, sooner


class Guest(Protocol):
    """A viewer's connection."""

    identity: Identity | None

    def stop(self, code: int, cause: str, why: str) -> None:
        """End the connection soon."""


class Hub:
    """Belongs to the event loop, between `start` and `close`.

    Attributes:
        feeds: by name.
        console: a random name of this run.
        served: how many viewers were welcomed.
    """

    def __init__(self, feeds: Sequence[Feed], tokens: Tokens, hosts: Hosts) -> None:
        self.feeds = {feed.name: feed for feed in feeds}
        self.tokens, self.hosts = tokens, hosts
        self.orders, self.refusals = Orders(), Refusals()
        self.console, self.served = secrets.token_hex(8), 0
        self._guests: set[Guest] = set()
        self._clock: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect to the feeds."""
        for feed in self.feeds.values():
            feed.start()
        self._clock = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """Disconnect from the feeds."""
        if self._clock is not None:
            self._clock.cancel()
            with suppress(asyncio.CancelledError):
                await self._clock
        for feed in self.feeds.values():
            feed.close()

    def welcome(self, identity: Identity, names: Sequence[str]) -> messages.Welcome:
        """The answer to a hello."""
        self.served += 1
        return messages.Welcome(
            right=identity.right,
            name=identity.name,
            feeds=tuple(self.feeds[name].title for name in names),
            version=messages.VERSION,
            presets=tuple(_presets([self.feeds[name] for name in names])),
            console=self.console,
        )

    @property
    def has_room(self) -> bool:
        """Whether another viewer may connect."""
        return len(self._guests) < VIEWERS

    @property
    def viewers(self) -> int:
        """How many connections there are now."""
        return len(self._guests)

    def enter(self, guest: Guest) -> None:
        """A connection begins."""
        self._guests.add(guest)

    def leave(self, guest: Guest) -> None:
        """A connection has ended."""
        self._guests.discard(guest)

    def report(self) -> dict[str, Any]:
        """What happened so far."""
        return {
            "viewers": self.served,
            "orders": dict(self.orders.counts),
            "pictures": {name: feed.coded for name, feed in self.feeds.items()},
            "refused": dict(self.refusals.counts),
            "version": __version__,
        }

    async def _tick(self) -> None:
        links: dict[str, Link] = {}
        again_s = 0.0
        while True:
            await asyncio.sleep(_LINK_S)
            again_s -= _LINK_S
            for feed in self.feeds.values():
                before, links[feed.name] = links.get(feed.name), feed.link
                if again_s <= 0 or links[feed.name] != before:
                    feed.state_again()
            if again_s <= 0:
                again_s = _AGAIN_S
                self._check_tokens()

    def _check_tokens(self) -> None:
        self.tokens.reread()
        for guest in tuple(self._guests):
            if guest.identity is not None and not self.tokens.is_valid(guest.identity):
                guest.stop(4401, "token", "this token was taken from the console's token file")


def _presets(feeds: Sequence[Feed]) -> list[messages.Preset]:
    found: dict[str, messages.Preset] = {}
    for feed in feeds:
        for thing in feed.status.get("presets") or ():
            if isinstance(thing, dict) and isinstance(thing.get("label"), str):
                color = thing.get("color")
                rgb = (int(color[0]), int(color[1]), int(color[2])) if color else None
                found.setdefault(thing["label"], messages.Preset(label=thing["label"], color=rgb))
    return list(found.values())
