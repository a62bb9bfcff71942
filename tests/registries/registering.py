"""Registers one file in a process of its own: ``registering.py WORKSPACE FILE [KILL]``.

Without arguments it reads them from lines, registers each in a child, and prints how that ended. KILL ends the process
at a point, as ``kill -9`` would: ``copy:N`` in the middle of the Nth piece that is copied, ``call:N`` before the Nth
call of MLflow's client, ``after:N`` after it. The registration prints the label and whether it is new.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from stageway.config.workspace import Workspace
from stageway.registries import content
from stageway.registries.base import NewVersion
from stageway.registries.mlflow import MlflowRegistry
from stageway.registries.mlflow.connection import Connection


class Counted:
    """A client that ends the process before or after one of its calls."""

    def __init__(self, client: Any, when: str, at: int) -> None:
        self.client, self.when, self.left = client, when, at

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0 and self.when == "call":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def register(root: str, file: str, kill: str = "") -> None:
    registry = MlflowRegistry(Workspace.open(Path(root), dict(os.environ)))
    when, _, number = kill.partition(":")
    if when == "copy":
        pieces, real = int(number), content._write_piece

        def write_piece(writing: int, piece: memoryview, offset: int) -> None:
            nonlocal pieces
            pieces -= 1
            if pieces == 0:
                real(writing, piece[: len(piece) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            real(writing, piece, offset)

        content._write_piece = write_piece
    elif when:
        counted = Counted(registry._connection.client, when, int(number))
        Connection.client = property(lambda _: counted)  # type: ignore[assignment, method-assign]
    done = registry.register(NewVersion(name="diabetes", path=Path(file), metrics={"rmse": 1.0}))
    print(done.model.label, "new" if done.new else "known", flush=True)


def main() -> None:
    if sys.argv[1:]:
        return register(*sys.argv[1:])
    import mlflow  # noqa: F401 - once for all children

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            register(*line.split())
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    main()
