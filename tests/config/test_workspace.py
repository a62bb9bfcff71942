"""The workspace is found from a folder upwards, and has one identity whoever asks first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stageway.config.workspace import Workspace, find
from stageway.errors import ConfigError


def write(folder: Path, more: str = "") -> Path:
    (folder / "stageway.yml").write_text(f"model: m\nstages: {{dev: {{}}}}\n{more}")
    return folder


def test_it_is_found_from_below(project: Path) -> None:
    write(project)
    (project / "a" / "b").mkdir(parents=True)
    assert Workspace.open(project / "a" / "b", {}).root == project
    assert Workspace.open(project / "stageway.yml", {}).root == project


def test_the_environment_says_where_it_is(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project)
    monkeypatch.chdir(tmp_path)
    assert Workspace.open(None, {"STAGEWAY_WORKSPACE": str(project)}).root == project
    monkeypatch.chdir(project)
    assert Workspace.open(None, {}).root == project


@pytest.mark.parametrize("place", [".", "away/for/good"])
def test_where_there_is_none_the_way_to_start_one_is_told(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=r"no stageway\.yml in .* or above it; `stageway init NAME` starts a project"):
        find(tmp_path / place)


def test_all_is_embedded_by_default(project: Path) -> None:
    found = Workspace.open(write(project), {"STAGEWAY_CACHE": "/cache"})
    assert found.embedded_registry
    assert found.registry_uri == f"sqlite:///{project}/.stageway/mlflow.db"
    assert found.database_url == f"sqlite:///{project}/.stageway/state.db"
    assert found.registry_identity == f"workspace-{found.id}"
    assert found.cache == Path("/cache")
    assert (project / ".stageway" / ".gitignore").read_text() == "*\n"


def test_the_file_says_otherwise_and_the_environment_overrides_it(project: Path) -> None:
    write(project, "workspace: {name: shop, registry: 'http://u:p@file/x/', database: 'postgresql://file/db'}\n")
    found = Workspace.open(project, {})
    assert (found.id, found.registry_uri, found.registry_identity, found.database_url) == (
        "shop",
        "http://u:p@file/x/",
        "http://file/x",
        "postgresql://file/db",
    )
    assert not found.embedded_registry
    there = {"MLFLOW_TRACKING_URI": "http://env", "STAGEWAY_DATABASE_URL": "sqlite:////env.db"}
    found = Workspace.open(project, there)
    assert (found.registry_uri, found.database_url) == ("http://env", "sqlite:////env.db")


def test_a_relative_sqlite_file_is_meant_from_the_project(project: Path) -> None:
    write(project, "workspace: {registry: 'sqlite:///models.db', database: 'sqlite:////abs.db'}\n")
    found = Workspace.open(project, {})
    assert (found.registry_uri, found.database_url) == (f"sqlite:///{project}/models.db", "sqlite:////abs.db")


def test_a_shared_database_needs_a_name(project: Path) -> None:
    write(project)
    with pytest.raises(ConfigError, match=r"^stageway\.yml: workspace\.name: missing, and the database is shared"):
        Workspace.open(project, {"STAGEWAY_DATABASE_URL": "postgresql://there/db"})


def test_first_commands_at_once_agree_on_one_identity(project: Path) -> None:
    write(project)
    code = "from stageway.config.workspace import Workspace; print(Workspace.open().id)"
    several = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {one.communicate(timeout=60)[0].strip() for one in several}
    assert said == {Workspace.open(project, {}).id}
    assert [path.name for path in (project / ".stageway").glob(".workspace-*")] == []


@pytest.mark.parametrize("before", [None, 0o755])
def test_its_state_is_for_its_owner_only(project: Path, before: int | None) -> None:
    write(project)
    state = project / ".stageway"
    if before is not None:
        state.mkdir()
        state.chmod(before)
    Workspace.open(project, {})
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_damaged_identity_is_told(project: Path) -> None:
    Workspace.open(write(project), {})
    (project / ".stageway" / "workspace.json").write_text(json.dumps([1]))
    with pytest.raises(ConfigError, match=r"workspace\.json: is damaged; restore it, or remove .*\.stageway to start"):
        Workspace.open(project, {})


def test_a_workspace_that_cannot_be_written_is_told(project: Path) -> None:
    write(project)
    (project / ".stageway").write_text("a file")
    with pytest.raises(ConfigError, match=r"\.stageway: cannot be written: .*; the workspace must be writable"):
        Workspace.open(project, {})


def test_a_read_only_workspace_is_told(project: Path, unprivileged: Callable[[str], str]) -> None:
    write(project)
    project.chmod(0o555)
    try:
        said = unprivileged("Workspace.open(Path('.'), {})")
    finally:
        project.chmod(0o755)
    assert said.endswith(".stageway: cannot be written: Permission denied; the workspace must be writable")
