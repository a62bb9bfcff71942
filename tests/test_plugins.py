"""Plug-ins are found by entry point, ours and those of others, and imported only when their name is used."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
import uv

from stageway import plugins
from stageway.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent

MODULE = '''
"""A target, a trigger and a gate of somebody else."""

from __future__ import annotations

from stageway.gates.base import No, Yes
from stageway.specs import Spec


class MoonTarget:
    """Runs releases on the moon."""

    capabilities = frozenset({"remote"})

    def __init__(self, workspace):
        self.workspace = workspace

    def plan(self, want):
        return ["replies take 1.3 s longer"]


class TideTrigger:
    """Starts a pipeline at high tide."""

    class Options(Spec):
        harbour: str

    def __init__(self, options, models, registry):
        self.options = options

    def events(self, since):
        yield from ()


class WeekdayGate:
    """Opens on one day of the week."""

    class Options(Spec):
        day: int = 0

    def __init__(self, options):
        self.day = options.day

    def needs(self):
        return ()

    def judge(self, evidence, incumbent, now):
        return Yes("it is the day") if now.weekday() == self.day else No(f"it is day {now.weekday()}")
'''

POINTS = {
    "stageway.targets": {"moon": "tides:MoonTarget"},
    "stageway.triggers": {"tide": "tides:TideTrigger"},
    "stageway.gates": {"weekday": "tides:WeekdayGate"},
}

PIPELINE = """\
model: iris
triggers:
  - tide: {harbour: Kiel}
stages:
  prod:
    target: moon
    gates:
      - weekday: {day: 4}
"""

USE = """
import sys
from datetime import datetime
from pathlib import Path

from stageway import plugins
assert not [name for name in sys.modules if name == "tides"]
from stageway.config.loader import load_pipeline
from stageway.gates.base import Standing, assess

assert "moon" in plugins.names("target") and "local" in plugins.names("target")
spec = load_pipeline(Path("stageway.yml"))
assert spec.triggers[0].options.harbour == "Kiel"
standing = Standing(stage="prod", label="iris:1")
for day in (23, 24):
    [judged] = assess(spec.stages["prod"].gates, {}, standing, datetime(2026, 7, day))
    print(judged.open, judged.sentence())
print(plugins.load("target", "moon")(None).plan(None), plugins.load("trigger", "tide").__name__)
"""


def by_hand(folder: Path) -> Path:
    """Write a wheel as its specification says: a zip of the module and its metadata."""
    wheel = folder / "tides-1.0-py3-none-any.whl"
    points = "\n".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in POINTS.items()
    )
    contents = {
        "tides.py": MODULE,
        "tides-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tides\nVersion: 1.0\n",
        "tides-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tides-1.0.dist-info/entry_points.txt": points,
    }
    record = ""
    for name, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    with zipfile.ZipFile(wheel, "w") as file:
        for name, text in {**contents, "tides-1.0.dist-info/RECORD": record + "tides-1.0.dist-info/RECORD,,\n"}.items():
            file.writestr(name, text)
    return wheel


def built(folder: Path) -> Path:
    """Build a wheel from a project, offline: uv brings its own backend."""
    project = folder / "tides"
    (project / "src" / "tides").mkdir(parents=True)
    (project / "src" / "tides" / "__init__.py").write_text(MODULE)
    groups = "".join(
        f'[project.entry-points."{group}"]\n' + "".join(f'{name} = "{value}"\n' for name, value in entries.items())
        for group, entries in POINTS.items()
    )
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
        '[project]\nname = "tides"\nversion = "1.0"\nrequires-python = ">=3.11"\n' + groups
    )
    run_uv(folder, "build", "--wheel", "--out-dir", str(folder), str(project))
    [wheel] = folder.glob("*.whl")
    return wheel


def run_uv(folder: Path, *arguments: str) -> None:
    command = [uv.find_uv_bin(), "--offline", "--no-config", "--cache-dir", str(folder / "uv-cache"), *arguments]
    done = subprocess.run([*command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def stageway(site: Path, project: Path, *command: str) -> str:
    """Run Python with the folder *site* on its path."""
    environ = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=[by_hand, built])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with somebody else's wheel installed."""
    folder = tmp_path / "site"
    (tmp_path / "wheels").mkdir()
    wheel = request.param(tmp_path / "wheels")
    run_uv(tmp_path, "pip", "install", "--no-deps", "--python", sys.executable, "--target", str(folder), str(wheel))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "stageway.yml").write_text(PIPELINE)
    return folder


def test_a_wheel_of_somebody_else_brings_a_target_a_trigger_and_a_gate(site: Path, project: Path) -> None:
    assert stageway(site, project, "-c", USE).splitlines() == [
        "False weekday: it is day 3",
        "True weekday: it is the day",
        "['replies take 1.3 s longer'] TideTrigger",
    ]


def test_the_command_line_knows_them_too(site: Path, project: Path) -> None:
    assert "ok" in stageway(site, project, "-m", "stageway", "schema", "check", "stageway.yml")
    schema = json.loads(stageway(site, project, "-m", "stageway", "schema", "print"))
    assert "moon" in schema["$defs"]["StageSpec"]["properties"]["target"]["enum"]
    listed = stageway(site, project, "-m", "stageway", "plugins", "--json")
    assert all(name in listed for name in ("moon", "tide", "weekday", "tides"))


def test_a_wheel_on_the_path_is_enough(tmp_path: Path, project: Path) -> None:
    assert "True weekday" in stageway(by_hand(tmp_path), project, "-c", USE)


def test_what_is_installed_is_what_pyproject_says() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    installed: dict[str, dict[str, str]] = {}
    for point in distribution("stageway").entry_points:
        if point.group.startswith("stageway."):
            installed.setdefault(point.group, {})[point.name] = point.value
    assert installed == told, "entry points are read at install time: run `pip install -e .` again"


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_plug_in_of_ours_loads(kind: str) -> None:
    ours = [name for name, point in plugins.found(kind).items() if point.dist and point.dist.name == "stageway"]
    assert ours
    for name in ours:
        assert callable(plugins.load(kind, name))


@pytest.fixture
def two_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two distributions that both bring a gate called ``same``; the first one on the path is broken."""
    for number, name in enumerate(("second", "first")):
        information = tmp_path / name / f"{name}-1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        (information / "entry_points.txt").write_text(f"[stageway.gates]\nsame = {name}_module:Gate\n")
        monkeypatch.syspath_prepend(str(tmp_path / name))
    plugins.found.cache_clear()
    yield
    plugins.found.cache_clear()


@pytest.mark.usefixtures("two_sites")
def test_of_two_with_one_name_the_first_on_the_path_wins_and_a_broken_one_names_its_wheel() -> None:
    said = r"^gate 'same' from first does not import: No module named 'first_module'$"
    with pytest.raises(ConfigError, match=said):
        plugins.load("gate", "same")


def test_an_unknown_name_lists_what_is_installed() -> None:
    with pytest.raises(ConfigError, match=r"^no target is called 'mars'; installed: .*local"):
        plugins.load("target", "mars")


def test_listing_names_imports_nothing(tmp_path: Path) -> None:
    code = "import sys\nfrom stageway import plugins\n[plugins.names(kind) for kind in plugins.KINDS]\n"
    code += "print([name for name in sys.modules if name.startswith('stageway.')])"
    assert stageway(tmp_path, tmp_path, "-c", code).strip() == "['stageway.errors', 'stageway.plugins']"
