"""The folder that a registration fills before its version exists, and what becomes of it when the process is killed.

It is called ``.incoming-…`` and lies beside the final place of its files. Its file ``lock`` is held by the living
owner; its file ``run`` names the MLflow run that would be left without a version.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".incoming-"
_WITHOUT_LOCK = 60.0
"""Seconds after which a folder that nobody locked is nobody's."""


@contextmanager
def incoming(place: Path, drop_run: Callable[[str], None]) -> Iterator[Path]:
    """Yield a new folder in *place* that is gone afterwards. What killed owners left there is removed first."""
    place.mkdir(parents=True, exist_ok=True)
    for folder in place.glob(f"{_PREFIX}*"):
        _sweep(folder, drop_run)
    folder = place / f"{_PREFIX}{secrets.token_hex(6)}"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def names_run(folder: Path, run_id: str) -> None:
    """Write down that *run_id* is without a version as long as *folder* is there."""
    (folder / "run").write_text(run_id, encoding="utf-8")


def _sweep(folder: Path, drop_run: Callable[[str], None]) -> None:
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / "run").is_file():
                drop_run((folder / "run").read_text(encoding="utf-8"))
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return  # its owner lives
    except FileNotFoundError:
        if folder.exists() and time.time() - folder.stat().st_mtime > _WITHOUT_LOCK:
            shutil.rmtree(folder, ignore_errors=True)
