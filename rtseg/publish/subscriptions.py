"""Which topics have subscribers, from the messages that an XPUB socket receives; and protection from abusive peers.

Whatever peers send, the state kept here is bounded, no peer can unsubscribe another one, and the thread that sends
pictures is never blocked for long.
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

_MAX_AT_ONCE = 256  # messages that are read before the next picture is sent
# Messages of one connection; a real subscriber sends a few. ZeroMQ itself keeps every subscription, without a limit.
_MAX_MESSAGES = 1000
_CHECK_NS = 900_000_000  # between two checks of the allow list


@dataclass(slots=True)
class _Peer:
    """A connection. File descriptors are reused, so only together with the inode do they identify it."""

    inode: int  # of this connection; a later one with the same descriptor has another
    messages: int = 0
    # Its public key; also the one of the previous connection, if its last message was read late.
    users: set[str] = field(default_factory=set)


class Subscriptions:
    """The subscribers of an XPUB socket (verbose and bound). It belongs to the thread of that socket.

    `keys`: the folder with the socket's allow list. ZeroMQ admits only keys on that list; a peer whose key is removed
    is disconnected here.
    """

    def __init__(self, xpub: zmq.Socket[bytes], stream: str, keys: Path | None = None) -> None:
        self._xpub, self._topics = xpub, {kind: f"{stream}/{kind}" for kind in TOPICS}
        self._endpoint = xpub.getsockopt_string(zmq.LAST_ENDPOINT)
        # Prefix of one of our topics: descriptors of the connections subscribed to it.
        self._subscribers: dict[str, set[int]] = {}
        self._peers: dict[int, _Peer] = {}  # by file descriptor
        self._keys, self._check_due_ns = keys, 0

    def has_subscriber(self, kind: Topic) -> bool:
        """Whether a topic may have a subscriber; never False if it has one."""
        return any(self._topics[kind].startswith(prefix) for prefix in tuple(self._subscribers))

    def read(self) -> bool:
        """Read the messages of peers; True if there is a new subscriber of the status."""
        joined = False
        self._check_keys()
        for _ in range(_MAX_AT_ONCE):
            if not self._xpub.poll(0):
                break
            event = self._xpub.recv(copy=False)
            message = bytes(event.buffer[:256])
            prefix, peer = message[1:].decode(errors="replace"), self._peer(event)
            is_ours = message[:1] in (b"\0", b"\1") and any(topic.startswith(prefix) for topic in self._topics.values())
            if peer is not None:
                self._count(peer, user_of(event))
            if is_ours and message[:1] == b"\1":
                self._subscribers.setdefault(prefix, set()).add(-1 if peer is None else peer)
                joined |= self._topics["status"].startswith(prefix)
            elif is_ours:
                self._unsubscribe(prefix, peer)
        return joined

    def _unsubscribe(self, prefix: str, peer: int | None) -> None:
        """Remove one subscriber of a prefix. Without a peer, ZeroMQ itself reports that the last subscriber is gone.

        An unsubscription by a peer counts for that peer alone, which may never have subscribed.
        """
        others = set() if peer is None else self._subscribers.get(prefix, set()) - {peer}
        if others:
            self._subscribers[prefix] = others
        else:
            self._subscribers.pop(prefix, None)

    @staticmethod
    def _peer(event: zmq.Frame) -> int | None:
        """The file descriptor of the connection that a message came from; None if it is unknown."""
        try:
            return int(event.get(zmq.SRCFD))
        except zmq.ZMQError:
            return None

    def _count(self, peer: int, user: str | None) -> None:
        try:
            inode = os.fstat(peer).st_ino
        except OSError:  # the connection is closed already
            self._peers.pop(peer, None)
            return
        peer_info = self._peers.get(peer)
        if peer_info is None or peer_info.inode != inode:
            peer_info = self._peers[peer] = _Peer(inode)
        peer_info.messages += 1
        peer_info.users |= set() if user is None else {user}
        if peer_info.messages >= _MAX_MESSAGES:
            self._disconnect(peer)

    def _check_keys(self) -> None:
        if self._keys is None or not self._peers or now_ns() < self._check_due_ns:
            return
        self._check_due_ns = now_ns() + _CHECK_NS
        removed = revoked(self._keys, set().union(*(peer_info.users for peer_info in self._peers.values())))
        for peer in [peer for peer, peer_info in self._peers.items() if peer_info.users & removed]:
            self._disconnect(peer)

    def _disconnect(self, peer: int) -> bool:
        """Close a connection, which frees all that ZeroMQ keeps for it.

        The peer may connect again, if it is allowed.
        """
        peer_info = self._peers.pop(peer)
        try:
            with socket.socket(fileno=os.dup(peer)) as connection:
                # The connection may be closed already, and its descriptor may belong to another file by now.
                name = connection.getsockname()
                address = f"ipc://{name}" if connection.family == socket.AF_UNIX else f":{name[1]}"
                if os.fstat(connection.fileno()).st_ino != peer_info.inode or not self._endpoint.endswith(address):
                    return False
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        return True
