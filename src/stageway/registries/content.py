"""What a model version is made of: its files, their digest, and copying them while they are hashed.

The digest of a version is ``sha256:`` and the sha256 of canonical JSON: a list with one ``[path, size, sha256]`` for
each file, sorted by path. A path is relative, with ``/``, and starts with the name that was registered: the file's, or
the folder's. ``Manifest.of`` writes the format, ``Manifest.from_json`` reads it back, ``copy`` verifies it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import queue
import stat
import sys
import threading
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stageway.errors import ConfigError, RegistryError
from stageway.facts import Fact, digest

FORMAT = 1
_PIECE = 2**18
_BUFFERS = 4
_FICLONE = 0x40049409  # linux/fs.h: share all blocks of another file


class File(Fact):
    """One file of a version."""

    path: str
    size: int
    sha256: str


class Manifest(Fact):
    """The files of a version, sorted by path."""

    files: tuple[File, ...]

    @classmethod
    def of(cls, files: Iterable[File]) -> Manifest:
        return cls(files=tuple(sorted(files, key=lambda one: one.path)))

    @property
    def digest(self) -> str:
        return digest([[one.path, one.size, one.sha256] for one in self.files])

    @property
    def size(self) -> int:
        return sum(one.size for one in self.files)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(one.path for one in self.files)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "digest": self.digest, "files": [one.model_dump() for one in self.files]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> Manifest:
        """Read what ``to_json`` wrote. ``RegistryError`` when it is newer or damaged, or a path leaves its folder."""
        try:
            if value["format"] > FORMAT:
                raise RegistryError(f"{where}: format {value['format']} is from a newer Stageway; upgrade this one")
            found = cls.of(File.model_validate(one) for one in value["files"])
            expected = value["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(f"{where}: is damaged ({error}); register the version again") from error
        for one in found.files:
            check_path(one.path, where)
        if found.digest != expected:
            raise RegistryError(f"{where}: its files are not those of {expected}; register the version again")
        return found


def check_path(path: str, where: str) -> str:
    """Return *path*, or raise ``RegistryError`` when it could leave the folder that it is put into."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or has_control(path):
        raise RegistryError(f"{where}: file {path!r} does not stay in its folder; the version is not used")
    return path


def has_control(text: str) -> bool:
    """Say whether *text* has characters that no name needs: NUL, line ends, escapes, halves of characters."""
    return any(unicodedata.category(one) in ("Cc", "Cs") for one in text)


@dataclass(frozen=True)
class Source:
    """A file to read: where it is, and its path in the version."""

    path: str
    real: Path


def walk(path: Path, name: str | None = None) -> list[Source]:
    """List the files of *path* (a file, or a folder with all it holds) as they will be named in a version.

    Raises ``ConfigError`` for what is missing, empty or not a plain file, for a link that leaves the folder, and for
    names that no other system could hold.
    """
    name = name or (path.name if path.name not in ("", "..") else path.resolve().name)
    try:
        if path.is_dir():
            found = _walk_folder(path, path.resolve(), name)
        elif path.is_file():
            found = [Source(name, path.resolve())]
        elif path.exists():
            raise ConfigError(f"{path}: is neither a file nor a folder")
        else:
            raise ConfigError(f"{path}: no such file or folder")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"{str(path)!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise ConfigError(f"{path}: the folder holds no files")
    for one in found:
        if has_control(one.path):
            raise ConfigError(f"{path}: file {one.path!r} has control characters in its name; rename it")
    return sorted(found, key=lambda one: one.path)


def _walk_folder(folder: Path, root: Path, name: str) -> list[Source]:
    found: list[Source] = []
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        path, inside = Path(entry.path), f"{name}/{entry.name}"
        if entry.is_symlink():
            real = path.resolve()
            if not real.is_relative_to(root):
                raise ConfigError(f"{path}: the link leaves {root}; replace it by a copy of {real}")
            if not real.is_file():
                raise ConfigError(f"{path}: is a link to {real}, which is not a file; replace it by a copy")
            found.append(Source(inside, real))
        elif entry.is_dir():
            found += _walk_folder(path, root, inside)
        elif entry.is_file():
            found.append(Source(inside, path))
        else:
            raise ConfigError(f"{path}: is not a plain file; leave it out of the folder")
    return found


def hashed(sources: Iterable[Source]) -> Manifest:
    """Return the manifest of *sources*, read where they are."""
    files: list[File] = []
    for one in sources:
        with one.real.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
            files.append(File(path=one.path, size=file.tell(), sha256=found.hexdigest()))
    return Manifest.of(files)


def copy(sources: Iterable[Source], into: Path) -> Manifest:
    """Copy *sources* below *into* and return the manifest of the copies, in one pass.

    What is hashed is what is written, so the manifest is true of the copy whatever happens to the original meanwhile.
    """
    files: list[File] = []
    for one in sources:
        target = into.joinpath(*PurePosixPath(one.path).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        size, sha256 = _copy_file(one.real, target)
        files.append(File(path=one.path, size=size, sha256=sha256))
    return Manifest.of(files)


def verify(found: Manifest, expected: Manifest, where: str) -> None:
    """Raise ``RegistryError`` that names the first file in which *found* differs from *expected*."""
    have = {one.path: one for one in found.files}
    for one in expected.files:
        other = have.get(one.path)
        if other is None:
            raise RegistryError(f"{where}: file {one.path!r} is missing in the registry; register the version again")
        if other.size != one.size:
            raise RegistryError(
                f"{where}: file {one.path!r} has {other.size} bytes, {one.size} were registered; "
                "register the version again"
            )
        if other.sha256 != one.sha256:
            raise RegistryError(
                f"{where}: file {one.path!r} was changed after it was registered; register the version again"
            )


def _copy_file(source: Path, target: Path) -> tuple[int, str]:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise ConfigError(f"{source}: is not a plain file any more")
        with target.open("x+b") as file:
            if _share(reading, file.fileno()):
                file.seek(0)
                found = hashlib.file_digest(file, "sha256")
                return file.tell(), found.hexdigest()
            return _Pump(reading, file.fileno()).run()
    finally:
        os.close(reading)


def _share(reading: int, writing: int) -> bool:
    """Let both files share their blocks until one is changed, where the file system can."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:
        return False
    return True


class _Pump:
    """Copies and hashes one file: a thread reads and hashes, this one writes. A piece is reused when it is written."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.writing = writing
        self.hash = hashlib.sha256()
        self.free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self.full: queue.SimpleQueue[memoryview | Exception] = queue.SimpleQueue()

    def run(self) -> tuple[int, str]:
        """Return the size and the sha256 of what was written."""
        for _ in range(_BUFFERS):
            self.free.put(memoryview(bytearray(_PIECE)))
        thread = threading.Thread(target=self._read, name="read and hash", daemon=True)
        thread.start()
        offset = 0
        try:
            while len(piece := self._next()):
                _write_piece(self.writing, piece, offset)
                offset += len(piece)
                self.free.put(memoryview(piece.obj))
        finally:
            self.free.put(None)
            thread.join()
        return offset, self.hash.hexdigest()

    def _next(self) -> memoryview:
        piece = self.full.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    def _read(self) -> None:
        offset = 0
        try:
            while (buffer := self.free.get()) is not None:
                piece = buffer[: _read_piece(self.reading, buffer, offset)]
                self.full.put(piece)
                if not len(piece):
                    return
                self.hash.update(piece)
                offset += len(piece)
        except Exception as error:  # noqa: BLE001 - is raised where the piece is waited for
            self.full.put(error)


def _read_piece(reading: int, buffer: memoryview, offset: int) -> int:
    return os.preadv(reading, [buffer], offset)


def _write_piece(writing: int, piece: memoryview, offset: int) -> None:
    written = 0
    while written < len(piece):
        written += os.pwrite(writing, piece[written:], offset + written)
