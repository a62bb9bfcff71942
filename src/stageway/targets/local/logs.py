"""The log of a service: cut when it grows too long, read from the end, followed across cuts and updates.

Services append to the file themselves, so that a killed keeper costs no line. It is cut by copying it aside and
emptying it: the copy, ``service.log.1``, appears last, and a new copy is the sign of a cut.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LONGEST = 8 * 2**20
POLL = 0.2
_BLOCK = 64 * 1024


def older(log: Path) -> Path:
    """Return where the cut-off part of *log* is."""
    return log.with_name(log.name + ".1")


def rotate(log: Path, longest: int = LONGEST) -> bool:
    """Cut *log* if it is longer than *longest* bytes; say whether it was."""
    try:
        if log.stat().st_size <= longest:
            return False
        copy = log.with_name(log.name + ".cut")
        shutil.copyfile(log, copy)
        os.truncate(log, 0)
        copy.replace(older(log))
    except OSError:
        return False
    return True


def tail(log: Path, lines: int) -> list[str]:
    """Return the last *lines* of *log*, going back to the part that was cut off."""
    found = _tail(log, lines)
    if len(found) < lines:
        found = _tail(older(log), lines - len(found)) + found
    return found


def _tail(path: Path, lines: int) -> list[str]:
    try:
        with path.open("rb") as file:
            at = file.seek(0, os.SEEK_END)
            data = b""
            while at > 0 and data.count(b"\n") <= lines:
                step = min(_BLOCK, at)
                at = file.seek(at - step)
                data = file.read(step) + data
    except OSError:
        return []
    return data.decode(errors="replace").splitlines()[-lines:] if lines else []


def follow(current: Callable[[], Path | None], lines: int) -> Iterator[str]:
    """Yield the last *lines* of the log that *current* names, then new ones as they come; end when it names none."""
    log = current()
    while log is not None:
        reader = _Reader(log)
        yield from reader.start(lines)
        while (now := current()) == log:
            fresh = reader.read()
            yield from fresh
            if not fresh:
                time.sleep(POLL)
        yield from reader.read()
        yield from reader.rest()
        log, lines = now, 2**31


class _Reader:
    """Reads one log forwards, whole lines only."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.at = 0
        self.cut = _mark(older(log))
        self.part = b""

    def start(self, lines: int) -> list[str]:
        """Return the last *lines* that are there; reading goes on behind them."""
        found = self._from(self.log, 0)[-lines:]
        if len(found) < lines:
            found = _tail(older(self.log), lines - len(found)) + found
        return found

    def read(self) -> list[str]:
        cut = _mark(older(self.log))
        if cut != self.cut:
            self.cut = cut
            found = self._from(older(self.log), self.at)
            self.at = 0
            return found + self.read()
        return self._from(self.log, self.at)

    def rest(self) -> list[str]:
        part, self.part = self.part, b""
        return [part.decode(errors="replace")] if part else []

    def _from(self, path: Path, at: int) -> list[str]:
        try:
            with path.open("rb") as file:
                file.seek(at)
                data = file.read()
                self.at = file.tell() if data else at
        except OSError:
            return []
        *whole, self.part = (self.part + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
