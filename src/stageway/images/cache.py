"""The cache folder that projects share: its locks, its scratch folders, and what to say when the disk says no.

``locks/<name>`` one file a key, never removed; ``scratch/<random>`` folders in the making: each is held by a
lock, so what a killed process left is known and removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stageway.errors import ConfigError, PackagingError

LOCK = ".lock"


@contextmanager
def exclusive(cache: Path, name: str) -> Iterator[None]:
    """Hold the lock *name*: one thread of one process at a time. The system frees it when its holder dies."""
    path = _folder(cache, "locks") / name
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Yield a new folder on the cache's disk, gone at the end; what killed processes left goes as well."""
    folder = _folder(cache, "scratch")
    _sweep(folder)
    path, lock = _claim(folder)
    try:
        path.mkdir()
        yield path
    finally:
        _remove(path)
        path.with_suffix(LOCK).unlink(missing_ok=True)
        lock.close()


def _folder(cache: Path, name: str) -> Path:
    """Return a folder of the cache. A cache that we make is ours alone: models and sources lie in it."""
    if not cache.exists():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / name
    folder.mkdir(exist_ok=True)
    return folder


def _claim(folder: Path) -> tuple[Path, IO[str]]:
    """Return a new name below *folder* and the lock that says that somebody lives who uses it."""
    while True:
        path = folder / secrets.token_hex(8)
        file = path.with_suffix(LOCK).open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if path.with_suffix(LOCK).stat().st_ino == os.fstat(file.fileno()).st_ino:
                return path, file
        except FileNotFoundError:
            pass  # swept before it was locked
        file.close()


def _sweep(folder: Path) -> None:
    """Remove what is held by nobody; a folder without a lock is of a program whose caller was killed and swept."""
    for lock in folder.glob(f"*{LOCK}"):
        try:
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock.with_suffix(""))
                lock.unlink(missing_ok=True)
        except OSError:
            continue  # held by somebody who lives, or just gone
    for path in folder.iterdir():
        if path.suffix != LOCK and not path.with_suffix(LOCK).exists():
            _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def write(path: Path, text: str) -> None:
    """Write the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def complaints(cache: Path) -> Iterator[None]:
    """Turn what the disk says into a sentence with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(cache) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ConfigError(
                f"{error.filename or cache}: {(error.strerror or '').lower()}; the cache {cache} must be writable, "
                "or set STAGEWAY_CACHE to a folder that is"
            ) from error
        raise


def full(cache: Path) -> PackagingError:
    """Return the error that says that the cache's disk is full."""
    return PackagingError(f"{cache}: no space left on the disk; free some, or set STAGEWAY_CACHE to a folder with room")
