"""Who watches what, by what an XPUB socket hears; and what to do with a peer that only makes noise.

Whatever peers say, what is kept of it is bounded, no peer can unsubscribe another one, and the thread that sends the
pictures is never held for long.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from ..base.defaults import TOPICS, Topic
from ..base.types import now_ns
from .keys import revoked, user_of

_AT_ONCE = 256  # messages that are heard before the next picture has its turn
_MOST = 1000  # messages of one connection; a subscriber sends a handful. ZeroMQ keeps each subscription, however many
_CHECK_NS = 900_000_000  # between two looks at the allow-list


@dataclass(slots=True)
class _Peer:
    """A connection. File descriptors are used again, so a number alone would name many, one after the other."""

    inode: int  # of this connection and no later one
    heard: int = 0  # messages
    users: set[str] = field(default_factory=set)  # its public key; and that of the one before, if he was heard late


class Audience:
    """Belongs to the thread of the socket, which is an XPUB one, verbose and bound.

    `keys`: the folder whose allow-list is the socket's; who is taken off it is hung up on, and ZeroMQ lets no one in
    who is not on it.
    """

    def __init__(self, xpub: zmq.Socket[bytes], stream: str, keys: Path | None = None) -> None:
        self._xpub, self._topics = xpub, {kind: f"{stream}/{kind}" for kind in TOPICS}
        self._where = xpub.getsockopt_string(zmq.LAST_ENDPOINT)
        self._asked: dict[str, set[int]] = {}  # a prefix of one of our topics, and the connections that asked for it
        self._peers: dict[int, _Peer] = {}  # by file descriptor; all that get something have asked for it
        self._keys, self._check_due_ns = keys, 0

    def watches(self, kind: Topic) -> bool:
        """Whether somebody may want a topic; never False for one that somebody watches."""
        return any(self._topics[kind].startswith(prefix) for prefix in tuple(self._asked))

    def hear(self) -> bool:
        """Take in what peers said; True if somebody new wants the status."""
        joined = False
        self._check_keys()
        for _ in range(_AT_ONCE):
            if not self._xpub.poll(0):
                break
            event = self._xpub.recv(copy=False)
            said = bytes(event.buffer[:256])
            prefix, peer = said[1:].decode(errors="replace"), self._peer(event)
            ours = said[:1] in (b"\0", b"\1") and any(topic.startswith(prefix) for topic in self._topics.values())
            if peer is not None:
                self._count(peer, user_of(event))
            if ours and said[:1] == b"\1":
                self._asked.setdefault(prefix, set()).add(-1 if peer is None else peer)
                joined |= self._topics["status"].startswith(prefix)
            elif ours:
                self._leave(prefix, peer)
        return joined

    def _leave(self, prefix: str, peer: int | None) -> None:
        """ZeroMQ says by itself, with no peer, when the last connection that wanted a prefix has gone.

        What a peer says of its own accord counts for that peer alone: it may never have subscribed.
        """
        others = set() if peer is None else self._asked.get(prefix, set()) - {peer}
        if others:
            self._asked[prefix] = others
        else:
            self._asked.pop(prefix, None)

    @staticmethod
    def _peer(event: zmq.Frame) -> int | None:
        """The connection a message came over, by its file descriptor."""
        try:
            return int(event.get(zmq.SRCFD))
        except zmq.ZMQError:
            return None

    def _count(self, peer: int, user: str | None) -> None:
        try:
            inode = os.fstat(peer).st_ino
        except OSError:  # it has gone already
            self._peers.pop(peer, None)
            return
        known = self._peers.get(peer)
        if known is None or known.inode != inode:
            known = self._peers[peer] = _Peer(inode)
        known.heard += 1
        known.users |= set() if user is None else {user}
        if known.heard >= _MOST:
            self._hang_up(peer)

    def _check_keys(self) -> None:
        if self._keys is None or not self._peers or now_ns() < self._check_due_ns:
            return
        self._check_due_ns = now_ns() + _CHECK_NS
        gone = revoked(self._keys, set().union(*(known.users for known in self._peers.values())))
        for peer in [peer for peer, known in self._peers.items() if known.users & gone]:
            self._hang_up(peer)

    def _hang_up(self, peer: int) -> bool:
        """End a connection, which frees all that ZeroMQ kept for it; it may connect again, if it is let in."""
        known = self._peers.pop(peer)
        try:
            with socket.socket(fileno=os.dup(peer)) as connection:
                # It may have gone already, and its number may be another file's by now.
                name = connection.getsockname()
                where = f"ipc://{name}" if connection.family == socket.AF_UNIX else f":{name[1]}"
                if os.fstat(connection.fileno()).st_ino != known.inode or not self._where.endswith(where):
                    return False
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        return True
