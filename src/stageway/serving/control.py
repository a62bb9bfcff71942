"""The control file: a few bytes shared by the keeper and the workers of one service, without a message between them.

Byte 0 is the drain flag (1: every reply closes its connection), byte 1 says that all workers were ready. Bytes 4 and 5
are how many workers there are to be, 6 and 7 how many serve. From byte 64 on there is a slot of 16 bytes for each
worker: requests in flight, then requests in total, as unsigned 64-bit integers. Numbers are in the machine's order,
which is little-endian wherever we run. A slot has one writer, so counting takes no lock; who writes it is settled by a
file lock, which ends with its process however that ends. There are more slots than workers, since at a reload an old
one finishes its requests while a new one takes others.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

from stageway.errors import ConfigError

DRAIN = 0
READY = 1
MUTEX = 2
WANTED = 2
SERVING = 3
"""Both as indexes of 16-bit numbers."""
SLOTS = 64
SLOT = 16
NUMBER = 8
SPARE = 2


class ControlFile:
    """One mapped control file; the keeper reads it, a worker claims a slot in it and counts."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, 0)
        self._bytes = memoryview(self._map)
        self._numbers = self._bytes.cast("Q")
        self._counts = self._bytes.cast("H")
        self.slots = (len(self._bytes) - SLOTS) // SLOT
        self._mine = -1

    @classmethod
    def create(cls, path: "str | os.PathLike[str]", workers: int) -> "ControlFile":
        """Write a fresh file for *workers* workers and open it; a file that was there stays with those who have it."""
        name = os.fspath(path)
        fresh = "{}.{}".format(name, os.getpid())
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, bytes(SLOTS + SLOT * (2 * workers + SPARE)))
        finally:
            os.close(descriptor)
        Path(fresh).replace(name)
        return cls.open(name)

    @classmethod
    def open(cls, path: "str | os.PathLike[str]") -> "ControlFile":
        """Map the file at *path*; ``FileNotFoundError`` where there is none."""
        name = os.fspath(path)
        descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(descriptor).st_size
        if size < SLOTS + SLOT or (size - SLOTS) % SLOT:
            os.close(descriptor)
            raise ConfigError("{}: is not a control file ({} bytes)".format(name, size))
        return cls(name, descriptor)

    def close(self) -> None:
        """Unmap the file; a claimed slot becomes free."""
        self._numbers.release()
        self._counts.release()
        self._bytes.release()
        self._map.close()
        os.close(self._descriptor)

    @property
    def draining(self) -> bool:
        return self._bytes[DRAIN] == 1

    @draining.setter
    def draining(self, value: bool) -> None:
        self._bytes[DRAIN] = int(value)

    @property
    def ready(self) -> bool:
        return self._bytes[READY] == 1

    @ready.setter
    def ready(self, value: bool) -> None:
        self._bytes[READY] = int(value)

    @property
    def wanted(self) -> int:
        return self._counts[WANTED]

    @wanted.setter
    def wanted(self, value: int) -> None:
        self._counts[WANTED] = value

    @property
    def serving(self) -> int:
        return self._counts[SERVING]

    @serving.setter
    def serving(self, value: int) -> None:
        self._counts[SERVING] = value

    @property
    def busy(self) -> bool:
        """Whether this worker has requests in flight."""
        return self._numbers[self._mine] > 0

    def in_flight(self) -> int:
        """Requests that were read and not yet answered, over all workers."""
        return sum(self._numbers[self._index(slot)] for slot in range(self.slots))

    def total(self) -> int:
        """Requests since the file was written; the health page is not counted."""
        return sum(self._numbers[self._index(slot) + 1] for slot in range(self.slots))

    def claim(self) -> int:
        """Take a slot that no living process holds; what its last holder had in flight died with it."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, MUTEX)
        try:
            for slot in range(self.slots):
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, SLOT, SLOTS + slot * SLOT)
                except OSError:
                    continue
                self._mine = self._index(slot)
                self._numbers[self._mine] = 0
                return slot
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, MUTEX)
        raise ConfigError("{}: all {} worker slots are taken; start with fewer workers".format(self.path, self.slots))

    def begin(self) -> None:
        """Count a request that came in."""
        self._numbers[self._mine] += 1
        self._numbers[self._mine + 1] += 1

    def end(self) -> None:
        """Count a request that was answered."""
        self._numbers[self._mine] -= 1

    @staticmethod
    def _index(slot: int) -> int:
        return (SLOTS + slot * SLOT) // NUMBER
