"""CURVE keys in a folder: who may connect, and which addresses need keys.

    keys/server.key, server.key_secret    the key pair of the side that binds (publisher, control)
    keys/NAME.key, NAME.key_secret        a key pair of a side that connects
    keys/allowed/NAME.key                 the allow list: public keys that may connect

The files have the format of `zmq.auth` certificates. A key that is added to `allowed/` is valid from the next
connection on. When a key is deleted there, its holder gets no more pictures after about a second, and its requests are
refused.

    allow_list.py  a socket that lets in only listed keys    client.py        a socket that shows its key
    files.py       the files of a key folder                 bind_address.py  what an address allows; listening.py binds
"""

from .allow_list import secure, user_of
from .client import HandshakeMonitor, present
from .files import SERVER, allow, allowed_keys, list_keys, new, revoked
from .listening import check_bind, listen, release

__all__ = [
    "SERVER",
    "HandshakeMonitor",
    "allow",
    "allowed_keys",
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
