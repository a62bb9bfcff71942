"""Find the workspace's keeper, start it when it is not there, and ask it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stageway.errors import TargetError, TryAgainError
from stageway.targets.local import wire
from stageway.targets.local.place import boot, check_owned, keeper_file, lock_file, log_file, read_json, same_boot

START = 30.0
"""Seconds until a keeper must answer."""
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "STAGEWAY_RUNTIME_DIR")
"""All that a keeper gets of its caller's environment; it keeps it for as long as it lives."""
TIMES = 3


class KeeperClient:
    """The keeper of the workspace whose state is in *state*."""

    def __init__(self, state: Path) -> None:
        self.state = state

    @property
    def should_live(self) -> bool:
        """A keeper was started since this machine was, and was not told to stop: if it is gone, it was killed."""
        found = self._where()
        return found is not None and same_boot(found.get("boot"), boot())

    def ask(self, do: str, *, timeout: float = 60.0, **ask: Any) -> Any:
        """Have something done; a keeper that is killed meanwhile is replaced and asked again."""
        for _ in range(TIMES):
            with self._connection(start=True) as connection:
                answer = self._say(connection, {"do": do, **ask}, timeout)
            if answer is not None:
                return answer
        raise TryAgainError(
            f"the keeper of {self.state.parent} ended {TIMES} times while it was asked to {do}; "
            f"{log_file(self.state)} says why"
        )

    def ask_living(self, do: str, *, timeout: float = 60.0) -> Any:
        """Have something done by the keeper that lives; ``None`` when there is none."""
        connection = self._connect()
        if connection is None:
            return None
        with connection:
            return self._say(connection, {"do": do}, timeout)

    def wait_for_end(self, timeout: float = START) -> None:
        """Wait until no keeper holds the lock."""
        import fcntl

        end = time.monotonic() + timeout
        with contextlib.suppress(FileNotFoundError), lock_file(self.state).open("rb") as lock:
            while time.monotonic() < end:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return
                time.sleep(0.02)
            raise TryAgainError(f"the keeper of {self.state.parent} does not end; {log_file(self.state)} may say why")

    def _say(self, connection: socket.socket, ask: dict[str, Any], timeout: float) -> Any:
        connection.settimeout(timeout)
        try:
            connection.sendall(wire.encode(ask))
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError as error:
            raise TryAgainError(
                f"the keeper of {self.state.parent} did not answer within {timeout:g} s; "
                f"{log_file(self.state)} may say why"
            ) from error
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        answer = wire.decode(line, any_version=ask["do"] == "down")
        if "error" in answer:
            raise wire.error_from_json(answer)
        return answer if answer["done"] is None else answer["done"]

    def _connection(self, *, start: bool) -> socket.socket:
        end = time.monotonic() + START
        while time.monotonic() < end:
            connection = self._connect()
            if connection is not None:
                return connection
            self._start()
            connection = self._connect()
            if connection is not None:
                return connection
            time.sleep(0.05)  # one keeper is ending, or another one starting
        raise TryAgainError(f"no keeper of {self.state.parent} answers; {log_file(self.state)} may say why")

    def _where(self) -> dict[str, Any] | None:
        """Return what the keeper says of itself; the next one writes the file anew, so damage is as nothing."""
        try:
            return read_json(keeper_file(self.state))
        except TargetError:
            return None

    def _connect(self) -> socket.socket | None:
        found = self._where()
        if found is None:
            return None
        path = Path(str(found.get("socket")))
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            check_owned(path.parent)
            connection.connect(str(path))
        except OSError:
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return connection

    def _start(self) -> None:
        """Start a keeper; when another one holds the lock, that is as good."""
        command = [sys.executable, "-P", "-m", "stageway.targets.local.keeper", str(self.state)]
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        try:
            done = subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TryAgainError(
                f"the keeper of {self.state.parent} did not start within {START:g} s; "
                f"{log_file(self.state)} may say why"
            ) from error
        if done.returncode != 0:
            why = done.stdout.strip() or f"the keeper of {self.state.parent} cannot start"
            raise TargetError(why, detail=done.stderr.strip())
