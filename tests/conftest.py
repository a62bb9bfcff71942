"""Fixtures that several folders of tests share."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stageway import plugins, store
from stageway.config.workspace import Workspace
from stageway.store import Store

STANDINS = Path(__file__).parent / "standins"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_BROWSER = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"

STAGES = """
stages:
  dev: {}
  prod: {}
"""


def missing(what: str, command: str) -> None:
    """Skip because *what* is not here, naming the command that would supply it; in CI that is a failure."""
    said = f"{what} is not here; `{command}` would supply it"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(scope="session")
def browser_program() -> str:
    """The browser of this machine: Chromium, or Chrome."""
    found = next(filter(None, map(shutil.which, (*BROWSERS, MAC_BROWSER))), None)
    if found is None:
        missing("a browser (Chromium or Chrome)", "apt-get install chromium")
    return str(found)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A private PostgreSQL on a socket in a folder of its own, ended with the tests; gives that folder."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("pg_ctl", path=os.pathsep.join([*map(str, reversed(programs)), os.environ.get("PATH", "")]))
    if found is None:
        missing("PostgreSQL", "apt-get install postgresql")
    programs_folder = Path(str(found)).resolve().parent
    # PostgreSQL refuses to run as root, and a socket's path has 107 bytes at most.
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="stageway-pg-", dir="/tmp"))
    if nobody is not None:
        shutil.chown(folder, nobody.pw_uid, nobody.pw_gid)

    def run(program: str, *arguments: str) -> None:
        with (folder / "output").open("a") as output:
            done = subprocess.run(
                [str(programs_folder / program), *arguments],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=120,
                user=nobody.pw_uid if nobody is not None else None,
                group=nobody.pw_gid if nobody is not None else None,
                extra_groups=[] if nobody is not None else None,
            )
        assert done.returncode == 0, (folder / "output").read_text()

    data, log = str(folder / "data"), str(folder / "log")
    try:
        run("initdb", "-D", data, "-U", "stageway", "-A", "trust", "-E", "UTF8", "--no-sync")
        run("pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", f"-k {folder} -c listen_addresses='' -c fsync=off")
        yield str(folder)
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            run("pg_ctl", "stop", "-D", data, "-m", "immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """The address of a new database on PostgreSQL."""
    import psycopg

    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(host=postgresql_server, user="stageway", dbname="postgres", autocommit=True) as server:
        server.execute(f"create database {name}")
    yield f"postgresql://stageway@/{name}?host={postgresql_server}"
    with psycopg.connect(host=postgresql_server, user="stageway", dbname="postgres", autocommit=True) as server:
        server.execute(f"drop database {name} with (force)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where CI has every real part, a test that skips is a test that failed."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        where = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped with CI=true: {where}"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a file that skips as a whole."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome, report.longrepr = "failed", f"skipped with CI=true: {report.longrepr[2]}"


class Project:
    """A workspace whose tasks, registry and target are the stand-ins of ``tests/standins``."""

    def __init__(self, root: Path, file: str, database: str | None = None) -> None:
        self.root = root
        self.environ = {"STAGEWAY_CACHE": str(root / "cache")}
        if database is not None:
            self.environ["STAGEWAY_DATABASE_URL"] = database
            file = "workspace: {name: shared}\n" + file
        self.file = file
        self.root.mkdir(parents=True, exist_ok=True)
        (root / "stageway.yml").write_text(file)
        self.clock = int(time.time() * 1000) - 1_000_000

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.root, self.environ)

    def open(self) -> Store:
        return store.open(self.workspace)

    def register(self, label: str, created: int | None = None, **metrics: float) -> None:
        """Put a version into the registry; later ones are created later."""
        self.clock += 1000
        path = self.root / "registry.json"
        models = json.loads(path.read_text()) if path.exists() else {}
        self._write(path, models | {label: {"created": created or self.clock, "metrics": metrics}})

    def unregister(self, label: str) -> None:
        path = self.root / "registry.json"
        models = json.loads(path.read_text())
        del models[label]
        self._write(path, models)

    def registry_away(self, away: bool) -> None:
        path = self.root / "registry.json"
        models = json.loads(path.read_text()) if path.exists() else {}
        models.pop("away", None)
        self._write(path, models | ({"away": True} if away else {}))

    def script(self, **what: Any) -> None:
        """Say what a task does when it is called; ``smoke_test_dev`` is the key of ``smoke-test dev``."""
        self._write(self.root / "script.json", what)

    def effects(self) -> list[str]:
        """Return what tasks did, in order: ``task [stage] label``."""
        path = self.root / "effects"
        return [line.rpartition(" ")[0] for line in path.read_text().splitlines()] if path.exists() else []

    def running(self, stage: str) -> str | None:
        """Return the label that the target reports for a stage."""
        path = self.root / "running" / f"diabetes-{stage}"
        return path.read_text().split()[1] if path.exists() else None

    def process(self, **how: Any) -> subprocess.Popen[str]:
        """Start a worker process (see ``tests/standins/worker.py``)."""
        environ = {**os.environ, **self.environ, "PYTHONPATH": str(STANDINS), "PYTHONDONTWRITEBYTECODE": "1"}
        environ.pop("CI", None)
        return subprocess.Popen(
            [sys.executable, str(STANDINS / "worker.py"), str(self.root), json.dumps(how)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @staticmethod
    def _write(path: Path, value: Any) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(value))
        fresh.replace(path)

    @staticmethod
    def until(true: Callable[[], object], seconds: float = 60.0) -> None:
        """Poll until *true* says so; fails after *seconds*."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.01)


@pytest.fixture
def standins() -> Iterator[None]:
    """Install the distribution of ``tests/standins`` for one test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STANDINS))
        plugins.found.cache_clear()
        yield
    plugins.found.cache_clear()


@pytest.fixture
def project(tmp_path: Path, standins: None) -> Project:
    """A workspace of stand-ins on SQLite: stages dev and prod, policy latest."""
    return Project(tmp_path / "project", "model: diabetes\n" + STAGES)


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path, standins: None) -> Project:
    """The same on SQLite, then on PostgreSQL."""
    database = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Project(tmp_path / "project", "model: diabetes\n" + STAGES, database)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests of one session share, its parallel workers included: dependencies are installed once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "shared-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def times(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A project whose service multiplies, on a developer's machine; its registry is the folder of ``tests/shelf``."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "shelf"))
    monkeypatch.delenv("CI", raising=False)
    plugins.found.cache_clear()
    import stageway_shelf  # type: ignore[import-not-found,unused-ignore]

    yield stageway_shelf.TimesProject(tmp_path / "project", shared_cache)
    monkeypatch.undo()
    plugins.found.cache_clear()


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database on SQLite, made once (it takes seconds); copy it before use."""
    from stageway.registries.mlflow import MlflowRegistry

    root = tmp_path_factory.mktemp("mlflow")
    (root / "stageway.yml").write_text("model: diabetes\n" + STAGES)
    workspace = Workspace.open(root, {})
    MlflowRegistry(workspace).ping()
    return workspace.state / "mlflow.db"


@pytest.fixture
def make_workspace(tmp_path: Path, mlflow_database: Path) -> Callable[..., Workspace]:
    """Make a workspace with the embedded MLflow registry: ``make_workspace(name, file)``."""

    def make(name: str = "project", file: str = "model: diabetes\n" + STAGES) -> Workspace:
        root = tmp_path / name
        root.mkdir()
        (root / "stageway.yml").write_text(file)
        workspace = Workspace.open(root, {"STAGEWAY_CACHE": str(tmp_path / "cache")})
        shutil.copyfile(mlflow_database, workspace.state / "mlflow.db")
        return workspace

    return make


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make a small disk that is soon full: ``make_disk("256k")``."""
    places: list[Path] = []

    def make(size: str) -> Path:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("a small disk is a tmpfs mount, and only root may mount; run as root")
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)
