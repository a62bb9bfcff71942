"""The layer store: folders named by what is in them, made once and shared by all projects of a cache.

``<cache>/layers/<hex>/content`` the files; ``listing`` beside it, whose SHA-256 is ``<hex>`` (``tree`` says its form);
``layer.json`` with size and count. ``<cache>/keys/<hex>`` says which layer was made from what, so that nothing is made
twice. A layer is made in a scratch folder and renamed into place: it is there whole, or not there. ``verify`` is the
inverse of making: it reads the files again and says what differs.

Files are read-only. Folders stay writable, so that removing the cache is one ``rm -r``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stageway.bundle import CONTENT
from stageway.errors import PackagingError
from stageway.facts import digest
from stageway.images import cache as caches
from stageway.images import tree
from stageway.release import Layer

FORMAT = 1
LISTING = "listing"
FACTS = "layer.json"
STAMP = 315532800
"""The one time stamp of all files (1980-01-01, as wheels have it): the digest does not know times."""


class LayerStore:
    """The layers of one cache folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def folder(self, layer_digest: str) -> Path:
        return self.cache / "layers" / layer_digest.removeprefix("sha256:")

    def content(self, layer: Layer) -> Path:
        """Return the folder with the layer's files."""
        return self.folder(layer.digest) / CONTENT

    def find(self, kind: str, made_from: Any) -> Layer | None:
        """Return the layer that was made from *made_from* (JSON values), if it is still there."""
        key = self._key(kind, made_from)
        try:
            layer_digest = (self.cache / "keys" / _hex(key)).read_text(encoding="utf-8").strip()
            facts = json.loads((self.folder(layer_digest) / FACTS).read_text(encoding="utf-8"))
            return Layer(kind=kind, digest=layer_digest, key=key, size=facts["size"], files=facts["files"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
            return None

    def make(self, kind: str, made_from: Any, fill: Callable[[Path], None]) -> Layer:
        """Return the layer of *made_from*, made by *fill* (which writes into an empty folder) unless it is there.

        Of several that make the same layer at once, one does and the others wait for it.
        """
        with caches.complaints(self.cache):
            found = self.find(kind, made_from)
            if found is not None:
                return found
            key = self._key(kind, made_from)
            with caches.exclusive(self.cache, _hex(key)):
                return self.find(kind, made_from) or self._make(kind, key, fill)

    def _make(self, kind: str, key: str, fill: Callable[[Path], None]) -> Layer:
        with caches.scratch(self.cache) as place:
            content = place / CONTENT
            content.mkdir()
            fill(content)
            entries = tree.read(content)
            _settle(content, entries)
            layer_digest = tree.digest(entries)
            size, files = sum(entry.size for entry in entries), sum(entry.kind != "folder" for entry in entries)
            facts = {"format": FORMAT, "digest": layer_digest, "size": size, "files": files}
            (place / LISTING).write_text(tree.dumps(entries), encoding="utf-8", newline="\n")
            (place / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
            self._place(place, self.folder(layer_digest))
        caches.write(self.cache / "keys" / _hex(key), layer_digest + "\n")
        return Layer(kind=kind, digest=layer_digest, key=key, size=size, files=files)

    def _place(self, made: Path, folder: Path) -> None:
        """Rename into place; the same bytes made from something else are there already, and that is fine.

        What is left of a layer that was being removed goes first.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.rename(folder)
        except OSError:
            with caches.exclusive(self.cache, f"place-{folder.name}"):
                if (folder / FACTS).is_file():
                    return
                left = made.with_name(made.name + ".left")
                with suppress(FileNotFoundError):
                    folder.rename(left)
                shutil.rmtree(left, ignore_errors=True)
                made.rename(folder)

    def listing(self, layer: Layer) -> list[tree.Entry]:
        """Return the layer's entries as they were listed when it was made."""
        return tree.loads((self.folder(layer.digest) / LISTING).read_text(encoding="utf-8"))

    def verify(self, layer: Layer) -> None:
        """Read the layer's files again. Raises ``PackagingError`` naming what is not as its digest says."""
        folder = self.folder(layer.digest)
        again = f"remove {folder} and run `stageway package` again"
        try:
            found = tree.read(folder / CONTENT)
        except OSError as error:
            raise PackagingError(f"{error.filename}: {(error.strerror or '').lower()}; {again}") from error
        if tree.digest(found) == layer.digest:
            return
        try:
            differs = sorted({entry.path for entry in set(found) ^ set(self.listing(layer))})
        except (OSError, ValueError, TypeError):
            differs = []
        named = ", ".join(differs[:3]) + (" …" if len(differs) > 3 else "") or LISTING
        raise PackagingError(f"{folder}: the {layer.kind} layer was changed ({named}); {again}")

    @staticmethod
    def _key(kind: str, made_from: Any) -> str:
        return digest({"format": FORMAT, "kind": kind, "from": made_from})


def _hex(key: str) -> str:
    return key.removeprefix("sha256:")


def _settle(content: Path, entries: list[tree.Entry]) -> None:
    """Make the files read-only and of one time, so that bytecode made on one machine's copy stays valid."""
    for entry in entries:
        if entry.kind == "file":
            path = content / entry.path
            path.chmod(0o555 if entry.executable else 0o444)
            os.utime(path, (STAMP, STAMP))
