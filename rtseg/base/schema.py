"""Checked values: turns dicts from files, sockets and the public API into typed structs.

    class Memory(Struct, frozen=True):
        policy: Annotated[str, one_of(POLICIES)] = "efp"
        spatial: Annotated[int, Meta(ge=1, le=64)] = 5

    convert({"spatail": 3}, Memory, "nano.toml: memory")
    ConfigError: nano.toml: memory: unknown key 'spatail'; did you mean 'spatial'?

msgspec converts and checks. If it refuses a dict, the error line names the first mistake: its place, the key, the value
found, and the value expected, which follows from the type. Numbers may be of any library: 3, 3.0, `np.int64(3)` and a
tensor of one number are the whole number 3; True and "3" are not. Arrays and tensors are read as lists. Fields of the
type `Any` are passed on unchanged. A rule about several fields is a `__post_init__` that raises `mistake(...)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from os import PathLike
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, inspect

from .errors import ConfigError, RtsegError, did_you_mean, short

T = TypeVar("T")
Text = Annotated[str, Meta(min_length=1, pattern=r"\A[^\0\ud800-\udfff]*\Z")]  # what can be written anywhere
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]  # only the bounds exclude infinity and NaN
ImageSize = Annotated[int, Meta(ge=64, le=4096, multiple_of=32)]  # side of the square that a network sees, in pixels

_MAX_DEPTH = 8  # of lists in lists
_TABLES = inspect.StructType, inspect.DataclassType
_LISTS = inspect.ListType, inspect.VarTupleType
_EXACT = 1 << 63  # floats below this become integers without loss


def convert(
    values: object,
    kind: type[T],
    where: str,
    error: type[RtsegError] = ConfigError,
    internal: Collection[str] = (),
) -> T:
    """A struct (or dataclass) of the type `kind`, made of a dict.

    Arguments:
        values: the dict; anything else is a mistake. A struct as the value of a key is checked like a dict.
        kind: a `msgspec.Struct` or a dataclass, whose annotations are the rules.
        where: opens the error line: the file, and the part of it.
        error: the class of the error.
        internal: fields that only rtseg sets; as keys of the dict they are unknown.

    Raises `error` in one line that names the first mistake.
    """
    if isinstance(values, Mapping):
        values = _plain_table(values, kind)
    tables = list(_tables(values, kind, where))
    for table in tables:
        line = table.unknown_key(internal if table is tables[-1] else ())
        if line is not None:
            raise error(line)
    try:
        return _convert(values, kind)
    except (msgspec.ValidationError, OverflowError) as e:
        lines = (table.mistake() for table in tables)
        raise error(next((line for line in lines if line is not None), f"{where}: {e}")) from None


def convert_value(value: object, kind: Any, name: str, error: type[RtsegError] = ConfigError) -> Any:
    """One value, checked as a field of the type `kind` would be; `name` opens the error line, as in "timeout = -1"."""
    value = plain(value)
    try:
        return _convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        raise error(f"{name} = {short(value)}; expected {_expected(inspect.type_info(kind), value, name)}") from None


def one_of(names: Collection[str]) -> Meta:
    """The rule of a text that is one of a few names: `Annotated[str, one_of(NAMES)]`."""
    return Meta(pattern=rf"\A(?:{'|'.join(map(re.escape, names))})\Z", extra={"choices": tuple(names)})


def mistake(key: str, value: object, expected: str) -> ValueError:
    """The exception for `__post_init__` to raise about a field that breaks a rule which its type does not state."""
    return ValueError(f"{key} = {short(plain(value))}; expected {expected}")


def _plain_number(value: Any) -> Any:
    """A number of any library as an int if it is whole, else as a float; any other value unchanged."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    try:
        if isinstance(value, Integral):
            return int(value)
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < _EXACT else number
    except (OverflowError, ValueError):
        return value


def _convert(values: Any, kind: type[T]) -> T:
    return msgspec.convert(values, kind, builtin_types=(bytes,))  # else a text would be taken for bytes in base64


# Plain values.


def plain(value: Any, depth: int = 0) -> Any:
    """A value with Python's own numbers, texts and lists instead of those of other libraries."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value] if depth < _MAX_DEPTH else value
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        items = value.tolist()
        return plain(items, depth + 1) if isinstance(items, list) else value
    return _plain_number(value)


def _plain_table(values: Mapping[Any, Any], kind: type) -> dict[Any, Any]:
    """A table with plain values; fields of the type `Any`, such as masks, are unchanged."""
    fields = _fields(kind)
    return {key: _plain_field(value, fields.get(key)) for key, value in values.items()}


def _plain_field(value: Any, field: _Field | None) -> Any:
    if field is None or isinstance(field.info, inspect.AnyType | inspect.CustomType):
        return value
    if isinstance(field.info, _TABLES):
        if isinstance(value, field.info.cls):  # made by a caller, so not checked yet
            value = {key: getattr(value, key) for key in _fields(field.info.cls)}
        return _plain_table(value, field.info.cls) if isinstance(value, Mapping) else value
    item = field.info.item_type if isinstance(field.info, _LISTS) else None
    if isinstance(item, _TABLES) and isinstance(value, list | tuple):
        return [_plain_table(row, item.cls) if isinstance(row, Mapping) else row for row in value]
    return plain(value)


# Types.


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a table: its annotation, its type without `None` and `UNSET`, and whether it is required."""

    annotation: Any
    info: inspect.Type
    required: bool


@lru_cache(maxsize=256)
def _fields(kind: type) -> dict[str, _Field]:
    hints = get_type_hints(kind, include_extras=True)
    table: Any = inspect.type_info(kind)
    return {field.encode_name: _Field(hints[field.name], _given(field.type), field.required) for field in table.fields}


def _given(info: inspect.Type) -> inspect.Type:
    """A type without `None`, which stands for an omitted field."""
    if isinstance(info, inspect.UnionType):
        given = [one for one in info.types if not isinstance(one, inspect.NoneType)]
        return given[0] if len(given) == 1 else info
    return info


# Mistakes.


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the input, the type that it should have, and its place for error lines."""

    values: Any
    kind: type
    where: str

    def unknown_key(self, internal: Collection[str]) -> str | None:
        """The error line for a value that is not a table, or for its first unknown key; None without such a mistake."""
        known = [key for key in _fields(self.kind) if key not in internal]
        if not isinstance(self.values, dict):
            return f"{self.where}: found {short(self.values)}; expected a table of: {', '.join(known)}"
        for key in self.values:
            if key not in known:
                return f"{self.where}: unknown key {short(key)}; {did_you_mean(str(key), known)}"
        return None

    def mistake(self) -> str | None:
        """The error line for the first wrong or missing field, or for a rule about several; None without a mistake."""
        for key, field in _fields(self.kind).items():
            if key in self.values:
                value = self.values[key]
                if not _fits(value, field.annotation):
                    return f"{self.where}: {key} = {short(value)}; expected {_expected(field.info, value, key)}"
            elif field.required:
                return f"{self.where}: {key!r} is missing; expected {_expected(field.info, None, key)}"
        try:
            _convert(self.values, self.kind)
        except (msgspec.ValidationError, OverflowError) as e:  # from `__post_init__`
            return f"{self.where}: {e}"
        return None


def _tables(values: Any, kind: type, where: str) -> Iterator[_Table]:
    """All tables inside a table, and then the table itself."""
    fields = _fields(kind) if isinstance(values, dict) else {}
    for key, field in fields.items():
        value = values.get(key)
        if isinstance(field.info, _TABLES) and value is not None:
            yield from _tables(value, field.info.cls, f"{where}: {key}")
        elif isinstance(field.info, _LISTS) and isinstance(field.info.item_type, _TABLES) and isinstance(value, list):
            for number, row in enumerate(value, 1):
                yield from _tables(row, field.info.item_type.cls, f"{where}: {key} {number}")
    yield _Table(values, kind, where)


def _fits(value: Any, annotation: Any) -> bool:
    try:
        _convert(value, annotation)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True


# Expected values in words.


def _expected(info: inspect.Type, value: object, key: str) -> str:
    """The values of a type in words; `value` is the refused one, None if it is missing."""
    if isinstance(info, inspect.Metadata):
        description = (info.extra_json_schema or {}).get("description")
        choices = (info.extra or {}).get("choices")
        if description is not None:
            return str(description)
        return _choice(choices, value) if choices else _expected(info.type, value, key)
    if isinstance(info, inspect.IntType):
        low, high, step = info.ge, info.le, info.multiple_of
        in_range = isinstance(value, int) and (low is None or low <= value) and (high is None or value <= high)
        return f"a multiple of {step}" if in_range and step else f"a whole number{_range(low, high)}"
    if isinstance(info, inspect.FloatType):
        return f"a number above {info.gt:g}" if info.gt is not None else f"a number{_range(info.ge, info.le)}"
    if isinstance(info, inspect.StrType):
        return "a text without NUL and half characters (surrogates)" if value and isinstance(value, str) else "a text"
    if isinstance(info, inspect.BoolType):
        return "true or false"
    if isinstance(info, inspect.LiteralType):
        return _choice(info.values, value)
    if isinstance(info, _LISTS):
        return _expected_list(info.item_type, info.min_length, key)
    if isinstance(info, inspect.TupleType):
        return f"a list of {len(info.item_types)}: each {_expected(info.item_types[0], None, key)}"
    if isinstance(info, _TABLES):
        return f"a table of: {', '.join(_fields(info.cls))}"
    if isinstance(info, inspect.UnionType):
        return " or ".join(_expected(one, value, key) for one in info.types)
    return "a value"


def _expected_list(item: inspect.Type, least: int | None, key: str) -> str:
    if isinstance(item, _TABLES):
        return f"{'at least one table' if least else 'tables'} headed [[{key}]]"
    inner = item.type if isinstance(item, inspect.Metadata) else item
    choices = inner.values if isinstance(inner, inspect.LiteralType) else None
    if isinstance(item, inspect.Metadata) and item.extra:
        choices = item.extra.get("choices")
    if choices:
        return f"a list of: {', '.join(map(str, choices))}"
    return "a list of texts" if isinstance(inner, inspect.StrType) else f"a list, each {_expected(item, None, key)}"


def _choice(choices: Iterable[Any], value: object) -> str:
    import difflib

    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.6) if isinstance(value, str) else []
    return f"one of: {', '.join(names)}" + "".join(f"; did you mean {name!r}?" for name in near)


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    least, most = (int(bound) if bound is not None and float(bound).is_integer() else bound for bound in (low, high))
    return f", {least} or more" if high is None else f", {least} to {most}"
