"""Collected rows as Parquet files, in v1's folders; a file appears whole, and the oldest go when there are too many.

``<collect>/<service>/<model>/<version>/<designation>/<yyyy>/<mm>/<dd>/<hhmmss>-<host>-<process>-<number>.parquet``
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from stageway.serving.flatten import MOST_CELLS, MOST_COLUMNS, as_text, text

ENDING = ".parquet"
HALF = ".part"
FORGOTTEN_SECONDS = 600.0
LARGEST_EXACT = 2**53

log = logging.getLogger("stageway.serving")


class Place(NamedTuple):
    """Which folder rows belong to, below that of the service."""

    model: str
    version: str
    designation: str


class Rows:
    """Rows of one place, collected until they are written; those of one request share their *marks*."""

    def __init__(self) -> None:
        self.count = 0
        self._columns: "dict[str, list[Any]]" = {}
        self._marks: "list[tuple[dict[str, Any], int]]" = []
        self._owners: "list[int]" = []

    def fits(self, columns: "dict[str, list[Any]]") -> bool:
        """Tell whether a file with *columns* too would not be mostly holes."""
        return (self.count + _length(columns)) * len(self._columns.keys() | columns.keys()) <= MOST_CELLS

    def add(self, columns: "dict[str, list[Any]]", marks: "dict[str, Any]", owner: int = 0) -> None:
        """Add the rows of one request, the *owner*; more columns than a file should have become one of JSON text."""
        added = _length(columns)
        if not added:
            return
        if len(self._columns) + sum(name not in self._columns for name in columns) > MOST_COLUMNS:
            columns = as_text(columns)
            added = _length(columns)
        for name, values in columns.items():
            self._columns.setdefault(name, [None] * self.count).extend(values)
        self.count += added
        for values in self._columns.values():
            if len(values) < self.count:
                values.extend([None] * added)
        self._marks.append((marks, added))
        self._owners.append(owner)

    def owners(self) -> "set[int]":
        """Return whose rows these are."""
        return set(self._owners)

    def sound(self) -> "Rows":
        """Return the rows of those requests only whose rows can be a table."""
        found, at = Rows(), 0
        for (marks, added), owner in zip(self._marks, self._owners):
            columns = {name: values[at : at + added] for name, values in self._columns.items()}
            columns = {name: values for name, values in columns.items() if any(one is not None for one in values)}
            at += added
            one = Rows()
            one.add(columns, marks, owner)
            try:
                one.table()
            except Exception as error:
                log.debug("not collected: %s", error)
                continue
            found.add(columns, marks, owner)
        return found

    def table(self) -> Any:
        """Return everything as an Arrow table: the data's columns, then the marks and the number within its request."""
        import pyarrow as pa

        found = {name: _column(values) for name, values in self._columns.items()}
        for name in self._marks[0][0]:
            of_type = pa.timestamp("us", "UTC") if name.endswith("timestamp") else pa.string()
            found[name] = pa.concat_arrays([pa.repeat(pa.scalar(marks[name], of_type), n) for marks, n in self._marks])
        found["$row"] = pa.array([number for _, added in self._marks for number in range(added)], pa.int32())
        return pa.table(found)


class Files:
    """The folder of one service, of which at most *keep* bytes of files are kept."""

    def __init__(self, collect: str, service: str, keep: int) -> None:
        self._folder = Path(collect, _name(service))
        self._keep = keep
        self._numbers = count(1)
        self._who = "{}-{}".format(_name(socket.gethostname()), os.getpid())

    def open(self) -> None:
        """Make the folder, and take away what an ended process left half-written; ``OSError`` when that cannot be."""
        self._folder.mkdir(parents=True, exist_ok=True)
        probe = self._folder / ".{}{}".format(self._who, HALF)
        probe.write_bytes(b"")
        probe.unlink()
        before = time.time() - FORGOTTEN_SECONDS
        for path in self._folder.rglob(".*" + HALF):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def write(self, place: Place, rows: Rows) -> None:
        """Write *rows* as one file; ``OSError`` when it cannot be written, and then nothing of it is left."""
        from pyarrow import parquet

        now = datetime.now(timezone.utc)
        folder = self._folder.joinpath(*map(_name, place), *now.strftime("%Y %m %d").split())
        folder.mkdir(parents=True, exist_ok=True)
        name = "{}-{}-{}{}".format(now.strftime("%H%M%S"), self._who, next(self._numbers), ENDING)
        half = folder / ".{}{}".format(name, HALF)
        try:
            with half.open("wb") as file:
                parquet.write_table(rows.table(), file)
                file.flush()
                os.fsync(file.fileno())
            half.replace(folder / name)
        finally:
            half.unlink(missing_ok=True)

    def trim(self) -> None:
        """Take the oldest files away until the others fit; other workers may be doing the same."""
        found = []
        for path in self._folder.rglob("*" + ENDING):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found.append((stat.st_mtime_ns, stat.st_size, path))
        size = sum(one[1] for one in found)
        for _, bytes_, path in sorted(found):
            if size <= self._keep:
                return
            path.unlink(missing_ok=True)
            size -= bytes_


def _length(columns: "dict[str, list[Any]]") -> int:
    return max((len(values) for values in columns.values()), default=0)


def _column(values: "list[Any]") -> Any:
    """Return values as one Arrow column: truth values, numbers, text, or JSON text of all that is mixed or nested.

    JSON has one kind of number, so there is one kind of column for it: files of one folder then fit together.
    """
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {bool}:
        return pa.array(values, pa.bool_())
    if kinds <= {int, float} and not any(type(one) is int and abs(one) > LARGEST_EXACT for one in values):
        return pa.array(values, pa.float64())
    written = [value if value is None or isinstance(value, str) else text(value) for value in values]
    try:
        return pa.array(written, pa.string())
    except UnicodeEncodeError:
        return pa.array([one and one.encode("utf-8", "replace").decode() for one in written], pa.string())


def _name(text: str) -> str:
    """Return *text* as the name of a folder, which leads nowhere else."""
    return re.sub(r"[^\w .@-]", "_", text).strip(" .") or "default"
