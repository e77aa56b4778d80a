"""Who may listen: CURVE keys in a folder, the allow-list at the door, and which addresses need them.

    keys/server.key, server.key_secret    the pair of whoever binds
    keys/NAME.key, NAME.key_secret        a pair of whoever connects
    keys/allowed/NAME.key                 the public keys that are let in

The files have the form of `zmq.auth` certificates. A key that is put into `allowed/` counts from the next connection
on. Whoever's key is deleted there gets no more pictures after about a second, and has no request done any more.
"""

from .address import check_bind, listen, release
from .files import SERVER, allow, allow_list, list_keys, new, revoked
from .gate import Handshakes, present, secure, user_of

__all__ = [
    "SERVER",
    "Handshakes",
    "allow",
    "allow_list",
    "check_bind",
    "list_keys",
    "listen",
    "new",
    "present",
    "release",
    "revoked",
    "secure",
    "user_of",
]
