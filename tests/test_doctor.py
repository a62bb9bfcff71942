"""``stageway doctor`` tells what is there, and names what would supply the rest."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from stageway import doctor, plugins
from stageway.config.workspace import Workspace
from stageway.doctor import Finding, examine

Look = Callable[..., Finding]


class Versions(BaseHTTPRequestHandler):
    """Answers as Docker Engine, a cluster and an MLflow server do."""

    status = 200
    answers: dict[str, Any] = {
        "/version": {"Version": "27.1", "gitVersion": "v1.33.0"},
        "/health": "OK",
    }

    def do_GET(self) -> None:
        body = json.dumps(self.answers.get(self.path, {})).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...

    def address_string(self) -> str:
        return "local"


class UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "local", 0


@contextmanager
def serving(place: Any = ("127.0.0.1", 0), status: int = 200) -> Iterator[HTTPServer]:
    handler = type("Handler", (Versions,), {"status": status})
    server = (UnixServer if isinstance(place, str) else HTTPServer)(place, handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "stageway.yml").write_text("model: iris\nworkspace: {name: tests}\nstages: {dev: {}}\n")
    return Workspace.open(tmp_path, {"STAGEWAY_CACHE": str(tmp_path / "cache")})


@pytest.fixture
def look(workspace: Workspace, tmp_path: Path) -> Look:
    """Examine the workspace and return the finding of one name."""

    def one(name: str, environ: dict[str, str] | None = None, **changes: Any) -> Finding:
        nothing = {"DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock", "KUBECONFIG": str(tmp_path / "no-config")}
        found = examine(replace(workspace, **changes), {**nothing, **(environ or {})})
        [finding] = [each for each in found if each.name == name]
        assert "\n" not in finding.says + finding.supplies
        assert finding.ok or finding.supplies
        return finding

    return one


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def kubeconfig(path: Path, server: str, **cluster: Any) -> Path:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", ["Python", "platform", "versions", "git", "uv", "cache", "workspace", "plug-ins"])
def test_what_the_tests_need_is_found(look: Look, name: str) -> None:
    assert look(name).ok


def test_without_a_workspace_the_machine_is_examined(tmp_path: Path) -> None:
    found = examine(None, {"STAGEWAY_CACHE": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")})
    names = [one.name for one in found]
    assert "cache" in names
    assert not {"workspace", "registry", "database"} & set(names)


def test_missing_git_is_told_with_what_supplies_it(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = look("git")
    assert not found.ok
    assert "apt-get install git" in found.supplies


def test_a_git_that_fails_is_not_fine(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look("git").says.endswith("ended with 7")


def test_a_cache_that_cannot_be_a_folder_is_told(look: Look, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = look("cache", cache=tmp_path / "file" / "cache")
    assert not found.ok
    assert "cannot be written" in found.says
    assert "STAGEWAY_CACHE=FOLDER" in found.supplies


def test_a_full_disk_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOM", 2**80)
    found = look("cache")
    assert not found.ok
    assert found.supplies.startswith("free ")


def test_no_docker_is_told(look: Look) -> None:
    found = look("Docker")
    assert not found.ok
    assert "apt-get install docker.io" in found.supplies


def test_docker_is_found_over_its_socket(look: Look, tmp_path: Path) -> None:
    with serving(str(tmp_path / "d.sock")):
        found = look("Docker", {"DOCKER_HOST": f"unix://{tmp_path}/d.sock"})
    assert found == Finding("Docker", True, f"Engine 27.1 at unix://{tmp_path}/d.sock")


def test_docker_is_found_over_tcp(look: Look) -> None:
    with serving() as server:
        found = look("Docker", {"DOCKER_HOST": f"tcp://127.0.0.1:{server.server_port}"})
    assert found.ok


def test_something_else_on_dockers_port_is_not_docker(look: Look) -> None:
    with serving(status=404) as server:
        found = look("Docker", {"DOCKER_HOST": f"tcp://127.0.0.1:{server.server_port}"})
    assert not found.ok
    assert found.says.endswith("answers 404")


@pytest.mark.parametrize("address", ["ssh://somewhere", "tcp://127.0.0.1:notaport", "nonsense"])
def test_an_address_we_do_not_examine_is_said(look: Look, address: str) -> None:
    assert not look("Docker", {"DOCKER_HOST": address}).ok


def test_a_docker_that_never_answers_does_not_hold_us_up(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s.sock"))
        silent.listen()
        assert "timed out" in look("Docker", {"DOCKER_HOST": f"unix://{tmp_path}/s.sock"}).says


def test_a_cluster_is_found(look: Look, tmp_path: Path) -> None:
    with serving() as server:
        file = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{server.server_port}")
        found = look("Kubernetes", {"KUBECONFIG": f"{tmp_path}/away{os.pathsep}{file}"})
    assert found.ok
    assert found.says == f"v1.33.0 at http://127.0.0.1:{server.server_port} (here)"


def test_a_cluster_that_asks_who_we_are_is_there(look: Look, tmp_path: Path) -> None:
    with serving(status=401) as server:
        file = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{server.server_port}")
        assert look("Kubernetes", {"KUBECONFIG": str(file)}).ok


def test_a_cluster_that_is_away_is_told(look: Look, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{closed_port()}")
    found = look("Kubernetes", {"KUBECONFIG": str(file)})
    assert not found.ok
    assert "does not answer: Connection refused" in found.says


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "current-context: x\n", "current-context: x\ncontexts: [{name: x}]\n", "\x00"],
)
def test_a_broken_kubeconfig_is_told(look: Look, tmp_path: Path, content: str) -> None:
    (tmp_path / "config").write_text(content)
    found = look("Kubernetes", {"KUBECONFIG": str(tmp_path / "config")})
    assert not found.ok
    assert "is not usable" in found.says


@pytest.mark.parametrize(
    "cluster",
    [
        {"server": "file:///etc/passwd"},
        {"server": "https://x", "certificate-authority": "away.pem"},
        {"server": "https://x", "certificate-authority-data": "!"},
        {"server": "https://x", "certificate-authority-data": base64.b64encode(b"no certificate").decode()},
    ],
)
def test_a_cluster_we_cannot_ask_is_told(look: Look, tmp_path: Path, cluster: dict[str, str]) -> None:
    file = kubeconfig(tmp_path / "config", **cluster)
    assert "is not usable" in look("Kubernetes", {"KUBECONFIG": str(file)}).says


def test_the_embedded_registry_is_fine(look: Look) -> None:
    assert look("registry").says == "MLflow on SQLite in .stageway/"


def test_a_registry_that_answers_is_fine_and_its_password_is_not_shown(look: Look) -> None:
    with serving() as server:
        at = f"127.0.0.1:{server.server_port}"
        found = look("registry", registry_uri=f"http://me:secret@{at}", registry_identity=f"http://{at}")
    assert found == Finding("registry", True, f"http://{at} answers")


@pytest.mark.parametrize("status", [500, None])
def test_a_registry_that_is_away_is_told(look: Look, status: int | None) -> None:
    with serving(status=status or 200) as server:
        port = server.server_port if status else closed_port()
        found = look("registry", registry_uri=f"http://u:secret@127.0.0.1:{port}", registry_identity="http://there")
    assert not found.ok
    assert "secret" not in found.says
    assert "MLFLOW_TRACKING_URI" in found.supplies


def test_a_database_that_is_away_is_told_without_its_password(look: Look) -> None:
    found = look("database", database_url=f"postgresql+psycopg://me:secret@127.0.0.1:{closed_port()}/state")
    assert not found.ok
    assert "secret" not in found.says
    assert "STAGEWAY_DATABASE_URL" in found.supplies


def test_a_database_that_answers_is_fine(look: Look, postgresql_url: str) -> None:
    found = look("database", database_url=postgresql_url)
    assert found.ok, found
    assert ", version " in found.says


def test_a_database_of_another_kind_is_told(look: Look) -> None:
    assert "of a kind we do not know" in look("database", database_url="mysql://x/y").says


def test_a_plug_in_of_others_that_does_not_load_is_told(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "site" / "theirs-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[stageway.gates]\nsun = theirs_away:Gate\nmoon = theirs:Gate\n")
    (information.parent / "theirs.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(information.parent))
    plugins.found.cache_clear()
    try:
        found = look("plug-ins")
    finally:
        plugins.found.cache_clear()
    assert not found.ok
    assert "gate 'sun' from theirs does not import" in found.says
    assert "gate 'moon' cannot be loaded: division by zero" in found.says


def test_the_command_prints_it_all_as_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stageway", "doctor", "--json"],
        cwd=tmp_path,
        env=os.environ | {"DOCKER_HOST": "unix:///away", "KUBECONFIG": "/away"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert {"name": "Kubernetes", "ok": False}.items() <= {one["name"]: one for one in json.loads(done.stdout)}[
        "Kubernetes"
    ].items()
