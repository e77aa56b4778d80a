"""The files of a key folder: made, read, and refused if other users can read or change them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zmq

from ...base.errors import ConfigError

SERVER = "server"  # the name of the key pair of the side that binds
_ALLOWED = "allowed"
_KEY = re.compile(rb'^\s*(public|secret)-key\s*=\s*"([!-~]{40})"\s*$', re.MULTILINE)
_MAX_BYTES = 1 << 16
Pair = tuple[bytes, bytes]


def new(folder: str | Path, name: str) -> dict[str, Any]:
    """Make a key pair, `server` for the side that binds, any other name for a client; and the folder, if necessary.

    `ConfigError` if the name is taken: a key is never replaced. The private key is only in its file.
    """
    folder = Path(folder)
    _check_name(name)
    public, secret = zmq.curve_keypair()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_owned(folder)
        _write(folder / f"{name}.key_secret", public, secret)
        _write(folder / f"{name}.key", public)
    except OSError as e:
        raise _unwritable(folder, e) from e
    then = "rtseg keys new NAME, once for each client" if name == SERVER else f"rtseg keys allow {name}"
    return {"name": name, "public_key": public.decode(), "file": str(folder / f"{name}.key"), "next": then}


def allow(folder: str | Path, name_or_file: str | Path) -> dict[str, Any]:
    """Add a public key to the allow list: a key of this folder by its name, or a file NAME.key from elsewhere."""
    folder, given = Path(folder), Path(name_or_file)
    file = given if given.suffix == ".key" else folder / f"{given}.key"
    if given.suffix == ".key_secret":
        raise ConfigError(f"{given}: a private key; expected the public one, which ends in .key; keep this one secret")
    name = file.stem
    _check_name(name)
    if name == SERVER:
        raise ConfigError(f"{file}: the server's key; expected a client's; run: rtseg keys new NAME")
    public = read_public(file)
    entry = folder / _ALLOWED / f"{name}.key"
    if entry.exists() and read_public(entry) != public:
        raise ConfigError(f"{entry}: another key of this name is allowed; delete that file first, or rename {file}")
    try:
        _check_owned(folder)
        entry.parent.mkdir(mode=0o700, exist_ok=True)
        _check_owned(entry.parent)
        if not entry.exists():
            _write(entry, public)
    except OSError as e:
        raise _unwritable(folder, e) from e
    return {
        "name": name,
        "public_key": public.decode(),
        "allowed": sorted(allowed_keys(folder, broken_too=False).values()),
    }


def list_keys(folder: str | Path) -> dict[str, Any]:
    """The public keys in a folder, by name: all, and those on the allow list."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one with keys; run: rtseg keys new {SERVER}")
    pairs = {file.stem: read_public(file).decode() for file in sorted(folder.glob("*.key"))}
    allowed = {name: public.decode() for public, name in allowed_keys(folder).items()}
    return {"folder": str(folder), "keys": pairs, "allowed": allowed}


def allowed_keys(folder: Path, broken_too: bool = True) -> dict[bytes, str]:
    """The allow list: public keys and their names. A broken file allows nobody; with `broken_too` it is an error.

    `ConfigError` also if others may change the list, or if it cannot be read completely.
    """
    allowed: dict[bytes, str] = {}
    home = folder / _ALLOWED
    if home.is_dir():
        _check_owned(home)
    for file in _entries(home):
        try:
            allowed[read_public(file)] = file.stem
        except ConfigError as e:
            if broken_too or _no_more_files(e.__cause__):
                raise
    return allowed


def revoked(folder: Path, users: Iterable[str]) -> set[str]:
    """Those of these once allowed public keys that are no longer on the allow list.

    Empty if the list cannot be read: strangers who use up all file descriptors must not disconnect others.
    """
    try:
        listed = allowed_keys(folder, broken_too=False)
    except (ConfigError, OSError):
        return set()
    return set(users) - {public.decode() for public in listed}


def server_pair(folder: Path) -> Pair:
    """Public and private key of the side that binds; `ConfigError` if no client is allowed."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one with keys; run: rtseg keys new {SERVER}")
    _check_owned(folder)
    pair = read_pair(folder / f"{SERVER}.key_secret")
    if not allowed_keys(folder):
        raise ConfigError(f"{folder}: nobody is on the allow list; expected a key or more; run: rtseg keys allow NAME")
    return pair


def client_pair(keys: Path) -> Pair:
    """Public and private key of a client: `keys` is its NAME.key_secret, or a folder that holds exactly one."""
    if keys.is_file():
        return read_pair(keys)
    found = [file for file in sorted(keys.glob("*.key_secret")) if file.stem != SERVER]
    if not found:
        raise ConfigError(f"{keys}: no key to show; expected NAME.key_secret; run: rtseg keys new NAME")
    if len(found) > 1:
        names = ", ".join(file.stem for file in found)
        raise ConfigError(f"{keys}: several keys ({names}); expected one; name the file, as {found[0]}")
    return read_pair(found[0])


def server_public(keys: Path, server_key: str | Path | None) -> bytes:
    """The public key that the server must own: 40 characters, a file, or (None) `server.key` beside the client's."""
    if isinstance(server_key, str) and len(server_key) == 40 and not Path(server_key).is_file():
        return server_key.encode()
    home = keys.parent if keys.is_file() else keys
    return read_public(home / f"{SERVER}.key" if server_key is None else Path(server_key))


def read_public(path: Path) -> bytes:
    """The public key in a file, 40 characters; `ConfigError` if there is none, or if the file has a private key."""
    found = _read(path)
    if b"secret" in found:
        raise ConfigError(f"{path}: holds a private key; expected a public one alone; use the .key file beside it")
    return _known(found[b"public"], path)


def read_pair(path: Path) -> Pair:
    """Public and private key in a file; `ConfigError` if they are no pair, or if others may read the file."""
    found = _read(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(
            f"{path}: others may read this private key (mode {mode:o}); expected 600; run: chmod 600 {path}"
        )
    if b"secret" not in found:
        raise ConfigError(f"{path}: no private key in it; expected a file that rtseg keys new made")
    public, secret = _known(found[b"public"], path), found[b"secret"]
    try:
        fits = zmq.curve_public(secret) == public
    except (zmq.ZMQError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(f"{path}: the two keys are no pair; expected a file that rtseg keys new made")
    return public, secret


def _read(path: Path) -> dict[bytes, bytes]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES)
    except OSError as e:
        why = (e.strerror or str(e)).lower()
        raise ConfigError(f"{path}: cannot be read ({why}); expected a key file; make one: rtseg keys new NAME") from e
    found = dict(_KEY.findall(text))
    if b"public" not in found:
        raise ConfigError(f"{path}: no public key in it; expected a file that rtseg keys new made")
    return found


def _known(public: bytes, path: Path) -> bytes:
    from zmq.utils import z85

    try:
        z85.decode(public)
    except (KeyError, ValueError, OverflowError) as e:
        raise ConfigError(f"{path}: {public.decode()!r} is no key; expected 40 characters of Z85") from e
    return public


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
        raise ConfigError(f"key name {name!r:.60}: expected 1 to 64 of A-Z, a-z, 0-9, '_', '-', '.'; choose another")


def _check_owned(folder: Path) -> None:
    """`ConfigError` if others may write to the folder: they could allow themselves."""
    found = folder.stat()
    if found.st_mode & 0o022 or found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{folder}: others may change what is in it; expected a folder of your own; run: chmod 700 {folder}"
        )


def _entries(home: Path) -> list[Path]:
    """The key files of a folder. Not by `glob`, which returns nothing for a folder that cannot be read."""
    try:
        return sorted(file for file in home.iterdir() if file.suffix == ".key")
    except FileNotFoundError:
        return []
    except OSError as e:
        why = (e.strerror or str(e)).lower()
        raise ConfigError(f"{home}: cannot be read ({why}); expected a folder of your own with keys") from e


def _no_more_files(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def _write(path: Path, public: bytes, secret: bytes | None = None) -> None:
    """Write a new key file with mode 600 from the start; `ConfigError` if it exists already."""
    text = f'metadata\ncurve\n    public-key = "{public.decode()}"\n'
    if secret is not None:
        text = f'#   A private key: give it to nobody.\n{text}    secret-key = "{secret.decode()}"\n'
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as e:
        raise ConfigError(
            f"{path}: is there already; expected a new name; a key is never replaced, delete it first"
        ) from e
    with os.fdopen(number, "w", encoding="ascii") as file:
        file.write(text)


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    why = (error.strerror or str(error)).lower()
    return ConfigError(f"{folder}: cannot be written ({why}); expected a folder that you may write to")
