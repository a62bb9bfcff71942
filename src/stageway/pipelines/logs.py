"""The log of a run, ``.stageway/runs/<number>.log``: what its tasks said, one line each."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError


def path(workspace: Workspace, run: int) -> Path:
    return workspace.state / "runs" / f"{run}.log"


def write(workspace: Workspace, run: int, where: str, text: str) -> None:
    """Append *text*. A log that cannot be written stops nobody: the journal is what counts."""
    file = path(workspace, run)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    said = "".join(f"{now}Z {where}: {line}\n" for line in text.splitlines() or [""])
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, said.encode())
        finally:
            os.close(handle)
    except OSError:
        return


def lines(workspace: Workspace, run: int | str, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
    """Yield the last *lines* of a run's log, then new ones while *follow*."""
    number = str(run)
    if not number.isdecimal() or not path(workspace, int(number)).is_file():
        raise ConfigError(f"no log of run {number!r} on this machine; `stageway status` lists runs")
    with path(workspace, int(number)).open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            yield line.rstrip("\n")
        while follow:
            if line := file.readline():
                yield line.rstrip("\n")
            else:
                time.sleep(0.2)
