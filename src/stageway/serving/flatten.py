"""From what was asked and answered to named columns, with the fields left out that nobody may keep.

Rows are one for each row of the data where there are rows, else one for the request. What has no place in a column is
written as JSON text, so that nothing is lost and every value has a type that a table can hold.
"""

from __future__ import annotations

import hashlib
import json
from math import prod
from typing import Any, Collection, Optional, Sequence

from stageway.serving import replies
from stageway.serving.replies import BadRequestError

MOST_COLUMNS = 1000
MOST_CELLS = 4_000_000
"""More are in no body that may be kept: what has more is mostly holes, and becomes text."""
MOST_REPEATED = 64 * 2**20
"""Bytes that the repetition of a name or a value beside each row may cost; what would cost more is one row of text."""
MOST_DIMENSIONS = 32
DEEPEST = 50
PLAIN = frozenset((int, float, bool, type(None)))
TEXT = "json"
ALWAYS_LEFT_OUT = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie"))


class Reader:
    """Turns bodies and values into columns, without the fields called *without*, in any case and at any depth."""

    def __init__(self, without: Collection[str] = ()) -> None:
        self._without = ALWAYS_LEFT_OUT.union(name.casefold() for name in without)
        self.names: "list[str]" = []
        """Those of the model's columns, for rows that come without."""

    def body(self, body: bytes) -> "dict[str, list[Any]]":
        """Return the columns of a JSON body; of any other only how long it is, and its digest."""
        try:
            return self.value(replies.loads(body))
        except BadRequestError:
            return {"$bytes": [len(body)], "$sha256": [hashlib.sha256(body).hexdigest()]}

    def value(self, value: Any, names: Optional[Sequence[str]] = None) -> "dict[str, list[Any]]":
        """Return the columns of a value; all have the same length."""
        columns = _table(self._kept(value, 0), self.names if names is None else [str(name) for name in names])
        kept = {_clean(name): values for name, values in columns.items() if not self._secret(name)}
        return kept if len(kept) <= MOST_COLUMNS else as_text(kept)

    def _secret(self, name: Any) -> bool:
        return isinstance(name, str) and name.casefold() in self._without

    def _named_secret(self, value: "dict[str, Any]") -> bool:
        """Tell of a tensor, and of any other value that stands beside its name."""
        return any(name.casefold() == "name" and self._secret(inner) for name, inner in value.items())

    def _kept(self, value: Any, depth: int) -> Any:
        """Return *value* without what is left out, also within text that is itself JSON."""
        if depth > DEEPEST:
            return None
        if isinstance(value, str):
            return self._opened(value, depth)
        if isinstance(value, list):
            if all(type(one) in PLAIN for one in value):
                return value
            shown = (one for one in value if not (isinstance(one, dict) and self._named_secret(one)))
            return [self._kept(one, depth + 1) for one in shown]
        if isinstance(value, dict):
            if self._named_secret(value):
                return {}
            kept = {name: self._kept(inner, depth + 1) for name, inner in value.items() if not self._secret(name)}
            if isinstance(kept.get("columns"), list):
                self._leave_out_of_split(kept, kept["columns"])
            return kept
        return value

    def _opened(self, text: str, depth: int) -> Any:
        inner = text.lstrip("\ufeff \t\r\n")
        if inner[:1] not in ("{", "["):
            return text
        try:
            return self._kept(json.loads(inner), depth + 1)
        except (ValueError, RecursionError):
            return text

    def _leave_out_of_split(self, kept: "dict[str, Any]", columns: "list[Any]") -> None:
        """Leave out of every list of rows beside the names of columns; rows of another length go altogether."""
        places = [place for place, name in enumerate(columns) if not self._names_secret(name)]
        if len(places) == len(columns):
            return
        for field, values in kept.items():
            if isinstance(values, list) and field != "columns":
                rows = [row for row in values if not isinstance(row, list) or len(row) == len(columns)]
                kept[field] = [[row[place] for place in places] if isinstance(row, list) else row for row in rows]
        kept["columns"] = [columns[place] for place in places]

    def _names_secret(self, name: Any) -> bool:
        return any(map(self._names_secret, name)) if isinstance(name, list) else self._secret(name)


def as_text(columns: "dict[str, list[Any]]") -> "dict[str, list[Any]]":
    """Return the same rows as one column of JSON text; as one row, where the names would be repeated too often."""
    length = len(next(iter(columns.values()), ()))
    if length * sum(map(len, columns)) > MOST_REPEATED:
        return {TEXT: [text(columns)]}
    rows = zip(*columns.values())
    return {TEXT: [text(dict(zip(columns, row))) for row in rows]}


def text(value: Any) -> str:
    """Return *value* as JSON, or as Python shows it where JSON cannot say it."""
    try:
        return replies.dumps(value).decode()
    except (TypeError, ValueError):
        return str(value).encode("utf-8", "replace").decode()


def _clean(name: str) -> str:
    """Return *name* with the halves of characters that JSON lets pass and no file takes as they are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _table(value: Any, names: "list[str]") -> "dict[str, list[Any]]":
    if isinstance(value, dict):
        return _object(value, names)
    if isinstance(value, list):
        return _rows(value, names)
    return {} if value is None else {"value": [value]}


def _object(value: "dict[str, Any]", names: "list[str]") -> "dict[str, list[Any]]":
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        return _rows(data, [str(name) for name in columns])
    for key in ("inputs", "outputs"):
        if _are_tensors(value.get(key)):
            return _tensors(value[key], names)
    if len(value) == 1 and isinstance(next(iter(value.values())), (dict, list)):
        name, inner = next(iter(value.items()))
        found = _table(inner, names)
        return {str(name): found["value"]} if list(found) == ["value"] else found
    return _joined({str(name): inner for name, inner in value.items()}, names)


def _joined(value: "dict[str, Any]", names: "list[str]") -> "dict[str, list[Any]]":
    """Return the columns of several fields: lists of one length side by side, single values beside each row."""
    lists = {name: inner for name, inner in value.items() if isinstance(inner, list)}
    lengths = {len(inner) for inner in lists.values()}
    if len(lengths) != 1 or any(isinstance(inner, dict) for inner in value.values()):
        return {name: [inner] for name, inner in value.items()}
    length = lengths.pop()
    beside = sum(8 + len(inner) if isinstance(inner, str) else 8 for name, inner in value.items() if name not in lists)
    if length * beside > MOST_REPEATED:
        return {name: [inner] for name, inner in value.items()}
    found: "dict[str, list[Any]]" = {}
    for name, inner in value.items():
        if name not in lists:
            found[name] = [inner] * length
            continue
        columns = _rows(inner, names)
        if list(columns) == ["value"]:
            found[name] = columns["value"]
        elif len(lists) == 1:
            found.update(columns)
        else:
            found.update({"{}.{}".format(name, column): values for column, values in columns.items()})
    return found


def _rows(rows: "list[Any]", names: "list[str]") -> "dict[str, list[Any]]":
    if not rows:
        return {}
    if all(isinstance(row, dict) for row in rows):
        found: "dict[str, None]" = {}
        for row in rows:
            found.update(dict.fromkeys(row))
        if len(found) > MOST_COLUMNS or len(found) * len(rows) > MOST_CELLS:
            return {TEXT: [text(row) for row in rows]}
        return {str(name): [row.get(name) for row in rows] for name in found}
    if not all(isinstance(row, list) for row in rows):
        return {names[0] if len(names) == 1 else "value": rows}
    width = len(rows[0])
    if not 0 < width <= MOST_COLUMNS or any(len(row) != width for row in rows):
        return {TEXT: [text(row) for row in rows]}
    titles = names if len(names) == width else ["f{}".format(number) for number in range(width)]
    return {title: list(values) for title, values in zip(titles, zip(*rows))}


def _are_tensors(value: Any) -> bool:
    """Say whether these are the named arrays of the Open Inference Protocol."""
    return isinstance(value, list) and bool(value) and all(map(_is_tensor, value))


def _is_tensor(one: Any) -> bool:
    if not isinstance(one, dict) or "name" not in one:
        return False
    data, shape = one.get("data"), one.get("shape")
    if not isinstance(data, list) or not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        return False
    return all(type(size) is int and size >= 0 for size in shape)


def _tensors(tensors: "list[dict[str, Any]]", names: "list[str]") -> "dict[str, list[Any]]":
    found: "dict[str, Any]" = {}
    for tensor in tensors:
        data, shape = tensor["data"], tensor["shape"]
        while data and all(isinstance(row, list) for row in data):
            data = [one for row in data for one in row]
        width = prod(shape[1:])
        if len(shape) > 1 and width > 1 and len(data) == shape[0] * width:
            data = [data[start : start + width] for start in range(0, len(data), width)]
        found[str(tensor["name"])] = data
    return _joined(found, names)
