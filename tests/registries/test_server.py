"""The MLflow registry at a server: a real one, one that is away, and one that answers badly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, RegistryError, StagewayError, TryAgainError
from stageway.registries.base import NewVersion
from stageway.registries.mlflow import MlflowRegistry


def workspace_at(root: Path, address: str) -> Workspace:
    root.mkdir(exist_ok=True)
    (root / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}}\n")
    return Workspace.open(root, {"MLFLOW_TRACKING_URI": address})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module", params=["proxied", "shared folder"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path
) -> Iterator[str]:
    """A real MLflow server: artifacts go through it, or into a folder that both sides see."""
    root = tmp_path_factory.mktemp("server")
    shutil.copyfile(mlflow_database, root / "mlflow.db")
    artifacts = ["--artifacts-destination", str(root / "artifacts")]
    if request.param == "shared folder":
        artifacts = ["--no-serve-artifacts", "--default-artifact-root", (root / "artifacts").as_uri()]
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]
    command += [*artifacts, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environ = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=root, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while not healthy(address):
            assert process.poll() is None, (root / "log").read_text()
            assert time.monotonic() < end, (root / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_a_server_does_all_that_the_embedded_registry_does(
    server: str, tmp_path: Path, model_file: Path, samples_folder: Path
) -> None:
    registry = MlflowRegistry(workspace_at(tmp_path / "project", server))
    registry.ping()
    assert registry.identity == server
    folder = tmp_path / "outputs"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights and more.bin").write_bytes(os.urandom(9 * 2**20))
    (folder / "empty").write_bytes(b"")
    want = NewVersion(
        name="diabetes", path=folder, metrics={"rmse": 54.0}, samples=samples_folder, tags={"candidate": "yes"}
    )
    first = registry.register(want)
    assert first.new
    assert first.model.has_samples
    assert first.model.metrics == {"rmse": 54.0}
    assert first.model.signature is not None
    assert registry.register(want).new is False
    second = registry.register(NewVersion(name="diabetes", path=model_file)).model
    assert [one.label for one in registry.versions("diabetes")] == [second.label, first.model.label]
    assert registry.versions("diabetes", tags={"candidate": "yes"})[0].id == first.model.id
    fetched = registry.fetch(first.model, tmp_path / "fetched")
    assert (fetched / "outputs" / "sub" / "weights and more.bin").read_bytes() == (
        folder / "sub" / "weights and more.bin"
    ).read_bytes()
    assert sorted(path.name for path in (fetched / "outputs").iterdir()) == ["empty", "sub"]
    back = registry.samples(first.model, tmp_path / "back")
    assert back is not None
    assert (back / "one.json").read_bytes() == (samples_folder / "one.json").read_bytes()
    registry.set_alias("diabetes", "prod", "1")
    registry.set_tags(second.id, {"a": "b"})
    assert registry.get("diabetes@prod") == first.model
    assert registry.get("diabetes").tags == {"a": "b"}
    registry.delete(second.label)
    assert registry.find(second.id) is None
    with pytest.raises(RegistryError, match=r"model 'diabetes:2': .* has only :1, @prod"):
        registry.get("diabetes:2")
    left = [path.name for path in (tmp_path / "project" / ".stageway").iterdir()]
    assert not any(name.startswith(".incoming") for name in left)


@pytest.mark.slow
def test_a_version_of_another_tool_at_a_server_is_deployable(server: str, tmp_path: Path, model_file: Path) -> None:
    registry = MlflowRegistry(workspace_at(tmp_path / "project", server))
    registry.ping()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server, registry_uri=server)
    run = client.create_run(client.create_experiment("training")).info
    client.log_artifact(run.run_id, str(model_file), "model")
    client.create_registered_model("foreign")
    client.create_model_version("foreign", f"{run.artifact_uri}/model", run.run_id)
    model = registry.get("foreign")
    assert model.files == ("model/model.joblib",)
    assert (registry.fetch(model, tmp_path / "fetched") / "model" / "model.joblib").read_bytes() == b"a model"
    done = registry.register(NewVersion(name="ours", run_id=run.run_id))
    assert done.model.digest == model.digest
    assert registry.fetch(done.model, tmp_path / "ours").is_dir()


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back(tmp_path: Path, server: str, model_file: Path) -> None:
    """What was asked meanwhile fails as 'try again', and the same registry object works afterwards."""
    with Relay(server) as relay:
        registry = MlflowRegistry(workspace_at(tmp_path / "project", relay.address))
        registry.register(NewVersion(name="relayed", path=model_file))
        relay.broken = True
        with pytest.raises(TryAgainError):
            registry.get("relayed:1")
        with pytest.raises(TryAgainError):
            registry.register(NewVersion(name="relayed", path=model_file, again=True))
        relay.broken = False
        assert registry.get("relayed:1").label == "relayed:1"
        assert registry.register(NewVersion(name="relayed", path=model_file)).new is False


class Relay:
    """Passes connections on to another address, or closes them while it is *broken*."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self.target = (host, int(port))
        self.broken = False
        self.open: list[socket.socket] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def __enter__(self) -> Relay:
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.close()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listening.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    def pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while (data := one.recv(65536)) and not self.broken:
                other.sendall(data)
        except OSError:
            pass
        finally:
            for end in (one, other):
                end.close()


@contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """A server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            text = body if isinstance(body, str) else json.dumps(body)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_a_registry_that_is_away_is_to_be_tried_again(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    registry = MlflowRegistry(workspace_at(tmp_path / "project", address))
    for call in (registry.ping, registry.names, lambda: registry.get("diabetes")):
        with pytest.raises(TryAgainError, match=f"registry {address} does not answer") as caught:
            call()
        assert caught.value.exit_code == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_in_trouble_is_to_be_tried_again(tmp_path: Path, status: int) -> None:
    with answering(status, "<html>trouble</html>") as address:
        registry = MlflowRegistry(workspace_at(tmp_path / "project", address))
        with pytest.raises(TryAgainError):
            registry.ping()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (403, {"error_code": "PERMISSION_DENIED", "message": "you may not\nat all"}, "said no: .*you may not"),
        (401, "Unauthorized", "said no: .*Unauthorized"),
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "not like this"}, "said no: .*not like this"),
        (404, "<html>nothing here</html>", "nothing here"),
        (200, "<html>a proxy's page</html>", "not in a valid JSON format"),
    ],
)
def test_a_server_that_says_no_is_quoted_in_one_line(tmp_path: Path, status: int, body: object, says: str) -> None:
    with answering(status, body) as address:
        registry = MlflowRegistry(workspace_at(tmp_path / "project", address))
        with pytest.raises(RegistryError, match=says) as caught:
            registry.ping()
    assert "\n" not in caught.value.message


def test_a_password_in_the_address_is_not_shown(tmp_path: Path) -> None:
    address = f"http://user:secret@127.0.0.1:{free_port()}"
    registry = MlflowRegistry(workspace_at(tmp_path / "project", address))
    assert "secret" not in registry.identity
    with pytest.raises(TryAgainError) as caught:
        registry.ping()
    assert "secret" not in caught.value.message + caught.value.detail


@pytest.mark.parametrize("address", ["nonsense://x", "http://", "mysql://127.0.0.1:1/db"])
def test_an_address_that_is_none_is_our_error_and_not_a_traceback(tmp_path: Path, address: str) -> None:
    registry = MlflowRegistry(workspace_at(tmp_path / "project", address))
    with pytest.raises(StagewayError):
        registry.ping()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a#b.bin", "a?b.bin", "a%20b.bin"])
def test_a_name_that_addresses_cannot_hold_comes_back_or_is_refused(
    request: pytest.FixtureRequest, server: str, tmp_path: Path, name: str
) -> None:
    """Where files go by rename such a name is fine; where they go by HTTP it is refused before anything is sent."""
    registry = MlflowRegistry(workspace_at(tmp_path / "project", server))
    (tmp_path / name).write_bytes(b"x")
    want = NewVersion(name="odd", path=tmp_path / name, again=True)
    if request.node.callspec.params["server"] == "shared folder":
        model = registry.register(want).model
        assert (registry.fetch(model, tmp_path / "fetched") / name).read_bytes() == b"x"
    else:
        with pytest.raises(ConfigError, match="rename it without"):
            registry.register(want)
