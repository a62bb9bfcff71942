"""Which files make the service reload, and a thread for each folder that is watched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

from stageway.desk.choice import Choice

QUIET = (r"\.log(\.\d+)?$", r"\.db(-\w+)?$", r"\.parquet$", r"\.tmp$")
"""Files that services write beside their script; were they watched, each request would be a reload."""

OURS = (".stageway", "mlruns", "azureml-models")


class Watching:
    """Calls *changed* with a phrase such as ``score.py`` or ``score.py and 2 more`` until it is stopped."""

    def __init__(self, choice: Choice, left_out: tuple[Path, ...], changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._stop = threading.Event()
        self._left_out = left_out
        for folder, names in _folders(choice).items():
            threading.Thread(target=self._watch, args=(folder, names), name=f"watch {folder}", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self, folder: Path, names: frozenset[str] | None) -> None:
        """Watch all below *folder*, or the files *names* right in it: those may be replaced by a new file."""
        wanted = DefaultFilter(
            ignore_dirs=(*DefaultFilter.ignore_dirs, *OURS),
            ignore_entity_patterns=(*DefaultFilter.ignore_entity_patterns, *QUIET),
            ignore_paths=self._left_out,
        )

        def keep(change: Change, path: str) -> bool:
            return wanted(change, path) if names is None else Path(path).name in names

        for changes in watch(folder, watch_filter=keep, stop_event=self._stop, recursive=names is None):
            self._changed(_said(sorted({os.path.relpath(path, folder) for _, path in changes})))


def watched(choice: Choice) -> str:
    """Say what a change of makes the service reload."""
    return ", ".join(
        str(folder / next(iter(names))) if names else f"{folder}{os.sep}" for folder, names in _folders(choice).items()
    )


def _folders(choice: Choice) -> dict[Path, frozenset[str] | None]:
    """Return folder → names of the files that count there, or ``None`` for all below it."""
    found: dict[Path, frozenset[str] | None] = {}
    if choice.directory is not None:
        found[choice.directory.resolve()] = None
    for chosen in choice.models:
        if chosen.path is not None:
            path = chosen.path.resolve()
            if path.is_dir():
                found[path] = None
            elif path.parent not in found:
                found[path.parent] = frozenset({path.name})
    return found


def _said(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
