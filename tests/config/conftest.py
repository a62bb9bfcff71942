"""A project folder to write files into, and a third party's plug-ins on the path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stageway import plugins
from stageway.config.loader import load_pipeline
from stageway.errors import ConfigError
from stageway.specs import PipelineSpec

GATE = """
from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, RootModel

from stageway.specs import Duration, Share, Spec


class Window(Spec):
    from_hour: int = Field(0, ge=0, le=23)
    days: tuple[Literal["mon", "tue"], ...] = ()
    longest: Duration = 1.0
    part: Share = 0.5
    extra: Window | str | None = None
    by_name: dict[str, Window] = {}


class HoursGate:
    Options = Window


class Limits(RootModel[dict[str, Window]]):
    pass


class LimitsGate:
    Options = Limits


class OldGate:
    pass


class QueueTrigger:
    class Options(Spec):
        address: str
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install plug-ins of somebody else: a module and its metadata in a folder on the path."""
    folder = tmp_path / "their-site"
    information = folder / "their_plugins-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "their_plugins.py").write_text(GATE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugins\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[stageway.gates]\nhours = their_plugins:HoursGate\nlimits = their_plugins:LimitsGate\n"
        "old = their_plugins:OldGate\nbroken = their_missing_module:Gate\n"
        "[stageway.triggers]\nqueue = their_plugins:QueueTrigger\n"
        "[stageway.targets]\nshed = their_missing_module:Shed\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    plugins.found.cache_clear()
    yield
    plugins.found.cache_clear()
    sys.modules.pop("their_plugins", None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project, which is the current folder too."""
    folder = tmp_path / "project"
    (folder / "samples").mkdir(parents=True)
    (folder / "score.py").write_text("def init(): ...\ndef run(data): ...\n")
    (folder / "requirements.txt").write_text("")
    monkeypatch.chdir(folder)
    return folder


Load = Callable[[str], PipelineSpec]
Problems = Callable[[str], list[str]]


@pytest.fixture
def load(project: Path) -> Load:
    """Write ``stageway.yml`` and load it."""

    def write_and_load(text: str) -> PipelineSpec:
        (project / "stageway.yml").write_text(text)
        return load_pipeline(project / "stageway.yml")

    return write_and_load


@pytest.fixture
def problems(load: Load) -> Problems:
    """Write a wrong ``stageway.yml`` and return all that is said of it, a line each."""

    def write_and_fail(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert "\n" not in caught.value.message
        return [caught.value.message, *caught.value.detail.splitlines()]

    return write_and_fail


@pytest.fixture
def unprivileged(project: Path) -> Callable[[str], str]:
    """Run a line in the project as somebody whom permissions stop, and return the last line of what it complains."""

    def run(line: str) -> str:
        # Root is stopped by nothing, so somebody else has to try; a first load imports all that is needed before.
        (project / "first.yml").write_text("model: m\nstages: {dev: {}}\n")
        drop = "import os\nif os.geteuid() == 0: os.seteuid(65534)\n"
        imports = "from pathlib import Path\nfrom stageway.config.workspace import Workspace, load_pipeline\n"
        imports += "load_pipeline(Path('first.yml'))\n"
        for folder in list(project.parents)[:4]:
            folder.chmod(folder.stat().st_mode | 0o011)
        command = [sys.executable, "-c", imports + drop + line]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stdout
        return done.stderr.rstrip().splitlines()[-1]

    return run
