"""A workspace with the target ``local`` whose releases are run by a small stand-in server."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stageway.bundle import Launch
from stageway.config.workspace import Workspace
from stageway.release import ModelVersion, Release
from stageway.targets.base import DeploymentConfig, Want
from stageway.targets.local import ports
from stageway.targets.local.process import NONCE
from stageway.targets.local.target import LocalTarget

STANDIN = Path(__file__).parent / "standin.py"


class StandInTarget(LocalTarget):
    """The target ``local``, with a stand-in for the server of a bundle."""

    def launch(self, want: Want, fresh: Path, app: Path, *, socket: Path, control: Path) -> Launch:
        fresh.mkdir()
        argv = (sys.executable, str(STANDIN), "--uds", str(socket), "--control", str(control))
        return Launch(argv, {"PATH": os.environ["PATH"], **want.config.environment_variables}, app)


class Local:
    """A workspace, its target, and what tests ask of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        (root / "stageway.yml").write_text("model: diabetes\nstages:\n  dev: {}\n  prod: {}\n")
        self.workspace = Workspace.open(root, {"STAGEWAY_CACHE": str(root / "cache")})
        self.target = StandInTarget(self.workspace)

    def want(self, version: int = 1, stage: str = "dev", weight: float = 1.0, **how: Any) -> Want:
        """Want version *version*; *how* goes to the deployment config, what it does not know to the stand-in."""
        model = ModelVersion(registry="r", name="diabetes", version=str(version), created=version)
        config: dict[str, Any] = {"ready_timeout": 20, "drain_timeout": 5}
        config |= {name: how.pop(name) for name in list(how) if name in DeploymentConfig.model_fields}
        variables = {"STANDIN": json.dumps({"version": str(version), **how})}
        return Want(
            service=f"diabetes-{stage}",
            stage=stage,
            release=Release(model=model, model_digest="m", image_digest="i", serve_digest="s", contract_digest="c"),
            config=DeploymentConfig(**config, environment_variables=variables),
            weight=weight,
        )

    @staticmethod
    def until(true: Callable[[], object], seconds: float = 30.0) -> None:
        """Poll until *true* says so."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.02)

    @property
    def keeper_pid(self) -> int:
        return int(json.loads((self.workspace.state / "keeper.json").read_text())["pid"])

    def processes(self, service: str = "diabetes-dev") -> list[psutil.Process]:
        """Return the living processes whose app root is in the folder of *service*."""
        folder = str(self.workspace.state / "services" / service) + os.sep
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(folder) and process.environ().get(NONCE):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    """A workspace with the target; what runs is ended with the test."""
    made = Local(tmp_path / "workspace")
    yield made
    made.target.down()
    assert not made.processes(), "down left processes behind"
    assert not made.processes("diabetes-prod"), "down left processes behind"


@pytest.fixture
def free_port(tmp_path: Path) -> int:
    """A port that no outgoing connection of the machine gets meanwhile."""
    with ports.free(f"{tmp_path}") as found:
        return int(found.getsockname()[1])
