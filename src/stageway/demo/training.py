"""Train the demo's versions as a user would: `train.py`, run by the service's own interpreter and packages."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageway import images
from stageway.config.workspace import Workspace
from stageway.errors import StagewayError


@dataclass(frozen=True)
class Trained:
    """What training left, ready to be registered."""

    folder: Path

    @property
    def metrics(self) -> dict[str, float]:
        return dict(json.loads((self.folder / "metrics.json").read_text(encoding="utf-8")))

    @property
    def reply(self) -> Any:
        """What this version predicts for the sample that the demo scores with."""
        return json.loads((self.folder / "samples" / "one-row.expected.json").read_text(encoding="utf-8"))


class Trainer:
    """Trains one version after the other in the background, in the order in which they were asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="demo-training")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def train(self, name: str, arguments: Sequence[str], *, ahead: bool) -> Future[Trained]:
        """Train into ``outputs/NAME``; what is there already was trained before. *ahead*: leave the cores to others."""
        return self._pool.submit(copy_context().run, self._train, name, tuple(arguments), ahead)

    def stop(self) -> None:
        """End what goes on, and start nothing more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _train(self, name: str, arguments: tuple[str, ...], ahead: bool) -> Trained:
        place = self._workspace.root / "outputs" / name
        if place.is_dir():
            return Trained(place)
        # Only a training that came to its end gets the final name; one of a killed demo may still be at work.
        for left in place.parent.glob(f".{name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        fresh = place.with_name(f".{name}-{secrets.token_hex(4)}")
        launch = images.environment(self._workspace)
        command = [*launch.argv, "train.py", *arguments, "--output", str(fresh)]
        said, code = self._call(command, launch.env, ahead)
        if code != 0:
            raise StagewayError(f"training {' '.join(arguments)} ended with {code}", detail=said)
        fresh.rename(place)
        return Trained(place)

    def _call(self, command: list[str], env: dict[str, str], ahead: bool) -> tuple[str, int]:
        environ = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
        with self._lock:
            if self._stopped:
                raise StagewayError("training was stopped")
            process = self._process = subprocess.Popen(
                command,
                cwd=self._workspace.root,
                env={**environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        if ahead:
            try:
                os.setpriority(os.PRIO_PROCESS, process.pid, 10)
            except OSError:
                pass
        said, _ = process.communicate()
        with self._lock:
            self._process = None
        return said, process.returncode
