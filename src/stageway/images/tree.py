"""A folder as a list of entries, and back: the text whose digest names a layer.

One JSON array a line, sorted by path: ``["path", "file", executable, size, sha256]``, ``["path", "link", false, 0,
target]`` or ``["path", "folder", false, 0, ""]``. Owners, times and other mode bits are left out: two builds agree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from stageway.errors import PackagingError

Kind = Literal["file", "link", "folder"]


class Entry(NamedTuple):
    """One thing in a folder; *content* is a file's SHA-256 (hex), a link's target, or empty."""

    path: str
    kind: Kind
    executable: bool
    size: int
    content: str


def read(folder: Path) -> list[Entry]:
    """List *folder*, sorted by path. Raises ``PackagingError`` for what must not be in a layer.

    Refused are links whose end is not inside the folder, devices, pipes, sockets, and names that are not UTF-8. A file
    with several hard links is one file: it is listed, and copied, by its bytes.
    """
    return sorted(_walk(folder, folder.resolve(), ""))


def _walk(folder: Path, root: Path, inside: str) -> Iterator[Entry]:
    for found in list(os.scandir(folder)):
        path = inside + found.name
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise PackagingError(f"{folder}: the name {found.name!r} is not UTF-8; rename it") from error
        state = found.stat(follow_symlinks=False)
        if stat.S_ISLNK(state.st_mode):
            yield Entry(path, "link", False, 0, check_link(Path(found.path), root))
        elif stat.S_ISDIR(state.st_mode):
            yield Entry(path, "folder", False, 0, "")
            yield from _walk(Path(found.path), root, path + "/")
        elif stat.S_ISREG(state.st_mode):
            yield Entry(path, "file", bool(state.st_mode & 0o100), state.st_size, file_digest(Path(found.path)))
        else:
            raise PackagingError(f"{found.path}: is neither file, folder nor link, and cannot be packaged; remove it")


def check_link(link: Path, root: Path) -> str:
    """Return where *link* points. Raises ``PackagingError`` unless it is relative and ends inside *root*."""
    target = str(link.readlink())
    if PurePosixPath(target).is_absolute():
        raise PackagingError(f"{link}: links to the absolute path {target!r}; make it relative, or copy the file")
    try:
        end = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise PackagingError(f"{link}: links to {target!r}, which is not there; remove it") from error
    if not end.is_relative_to(root):
        raise PackagingError(f"{link}: links to {target!r}, outside of {root}; copy what it means into the folder")
    return target


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dumps(entries: list[Entry]) -> str:
    """Write *entries* as the listing."""
    lines = [json.dumps(list(entry), ensure_ascii=False, separators=(",", ":")) for entry in entries]
    return "".join(line + "\n" for line in lines)


def loads(text: str) -> list[Entry]:
    """Read a listing that ``dumps`` wrote."""
    return [Entry(*json.loads(line)) for line in text.split("\n") if line]


def digest(entries: list[Entry]) -> str:
    """Return ``sha256:<hex>`` of the listing: the digest of a layer."""
    return "sha256:" + hashlib.sha256(dumps(entries).encode()).hexdigest()


def copy(source: Path, into: Path, entries: list[Entry], *, link: bool = False) -> None:
    """Make *entries* of *source* in the folder *into*; with *link* files are hard links where the disk allows it."""
    for entry in entries:
        target = into / entry.path
        if entry.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
        elif entry.kind == "link":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(entry.content)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_file(source / entry.path, target, link=link)


def _copy_file(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another disk, or a disk without hard links
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
