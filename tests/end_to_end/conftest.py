"""What the end-to-end tests share: a machine of a new user, and a look at what runs on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

OURS = ("MLFLOW_", "STAGEWAY_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "COV_")


@dataclass(frozen=True)
class Home:
    """An empty home folder, and the environment of a user who has nothing set."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        commands = Path(sys.executable).parent
        return {**kept, "HOME": str(self.path), "PATH": f"{commands}{os.pathsep}{kept['PATH']}"}

    def start(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start ``python -m stageway …`` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "stageway", *map(str, arguments)],
            cwd=cwd or self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stageway(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``python -m stageway …`` to its end."""
        process = self.start(*arguments, cwd=cwd)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that work below this home."""
        found = []
        for process in psutil.process_iter():
            try:
                said = [*process.cmdline(), process.cwd()]
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if any(str(self.path) in one for one in said):
                found.append(process)
        return found


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Home]]:
    """Give a new user's machine. Whatever still runs below it in the end is stopped."""
    homes: list[Home] = []

    def make() -> Home:
        path = tmp_path_factory.mktemp("user") / "home"
        path.mkdir()
        homes.append(Home(path))
        return homes[-1]

    yield make
    for process in [process for home in homes for process in home.processes()]:
        try:
            process.kill()
            process.wait(10)
        except psutil.NoSuchProcess:
            pass


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Home:
    return new_home()
