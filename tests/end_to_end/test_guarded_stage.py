"""A stage whose service asks for keys, has limits and keeps what it was asked, as its user sets it up and runs it."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Home

pytestmark = pytest.mark.slow

FILE = """\
model: people
serve: {entry-script: score.py, samples: samples}
profile: {budget: 1s}
stages:
  dev:
    auth: {file: keys.json, test-key: {env: DEV_KEY}}
    requests: {timeout: 20s, queue-wait: 10s, body: 64KiB}
    cors: ["https://app.example.com"]
    collect: {without: [name]}
"""

SCRIPT = """\
import json
import os


def init():
    global factor
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "factor.json")) as file:
        factor = json.load(file)


def run(data):
    return [{"name": one["name"], "score": factor * one["age"]} for one in json.loads(data)["data"]]
"""

BODY = b'{"data": [{"name": "Ada Lovelace", "age": 36}]}'
ORIGIN = "https://app.example.com"

Ended = subprocess.CompletedProcess[str]


class Project:
    """The project of a user who wrote the file first, and made the keys when told to."""

    def __init__(self, home: Home, cache: Path) -> None:
        self.home, self.root, self.cache = home, home.path / "project", cache
        (self.root / "samples").mkdir(parents=True)
        (self.root / "samples" / "one.json").write_bytes(BODY)
        (self.root / "score.py").write_text(SCRIPT)
        (self.root / "stageway.yml").write_text(FILE)
        self.register(2)
        self.without_file = [self.stageway(command, "people:1") for command in ("plan", "run")]
        made = json.loads(self.must("keys", "make", "keys.json", "--json").stdout)
        self.keys: dict[str, str] = {name: made[name] for name in ("primary", "secondary")}
        self.without_key = [self.stageway(command, "people:1") for command in ("plan", "run")]
        self.ran = self.run("people:1")

    @property
    def environment(self) -> dict[str, str]:
        # On this user's own machine: CI=true would ask for a committed lock.
        return {**self.home.environment, "CI": "", "STAGEWAY_CACHE": str(self.cache)}

    def stageway(self, *arguments: str, **environ: str) -> Ended:
        """Run a command of the program in the project's folder."""
        return subprocess.run(
            ["stageway", *arguments],
            cwd=self.root,
            env={**self.environment, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def must(self, *arguments: str, **environ: str) -> Ended:
        done = self.stageway(*arguments, **environ)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def register(self, factor: int) -> None:
        (self.root / "factor.json").write_text(str(factor))
        (self.root / "samples" / "one.expected.json").write_text(
            json.dumps([{"name": "Ada Lovelace", "score": 36 * factor}])
        )
        self.must("register", "factor.json")

    def run(self, label: str, key: str = "") -> Ended:
        return self.stageway("run", label, DEV_KEY=key or self.keys["primary"])

    def rotate(self, name: str) -> str:
        """Make the key *name* anew; return the one that it was."""
        old = self.keys[name]
        self.keys[name] = json.loads(self.must("keys", "rotate", "keys.json", "--key", name, "--json").stdout)[name]
        return old

    @property
    def row(self) -> dict[str, Any]:
        """What the board says of the stage."""
        (row,) = json.loads(self.must("status", "--json").stdout)["board"]
        return dict(row)

    @property
    def endpoint(self) -> str:
        return str(self.row["endpoint"])


def ask(
    endpoint: str, key: str = "", body: bytes = BODY, path: str = "/score", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return status, headers and body of the reply."""
    address = urlsplit(endpoint)
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    with contextlib.closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)) as connection:
        connection.request(method, path, body, sent)
        reply = connection.getresponse()
        return reply.status, {name.lower(): text for name, text in reply.getheaders()}, reply.read()


class Client(threading.Thread):
    """Asks with one key again and again, until it is told to stop; counts the statuses that came back."""

    def __init__(self, endpoint: str, key: str) -> None:
        super().__init__(daemon=True)
        self.endpoint, self.key = endpoint, key
        self.seen: Counter[Any] = Counter()
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.005):
            try:
                self.seen[ask(self.endpoint, self.key)[0]] += 1
            except (OSError, http.client.HTTPException) as error:
                self.seen[f"{type(error).__name__}: {error}"] += 1

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        self.join()


@pytest.fixture(scope="module")
def project(new_home: Callable[[], Home], shared_cache: Path) -> Iterator[Project]:
    made = Project(new_home(), shared_cache)
    yield made
    made.stageway("down")


def test_a_missing_file_of_keys_is_told_by_plan_and_run_in_one_line(project: Project) -> None:
    sentence = "stages.dev.auth.file: no such file 'keys.json'; `stageway keys make keys.json` writes one"
    for done in project.without_file:
        assert done.returncode == 2, done.stderr
        assert [line for line in done.stdout.splitlines() if line.endswith(sentence)]
        assert "Traceback" not in done.stdout + done.stderr


def test_a_missing_key_is_told_by_plan_and_run_before_anything_is_placed(project: Project) -> None:
    sentence = "stages.dev.auth.test-key.env: the variable 'DEV_KEY' is not set; put one of the keys of 'keys.json'"
    for done in project.without_key:
        assert done.returncode == 2, done.stderr
        assert sentence in done.stdout
        assert "placing" not in done.stdout + done.stderr


def test_the_run_passes_its_smoke_test_with_the_key(project: Project) -> None:
    assert project.ran.returncode == 0, project.ran.stdout + project.ran.stderr
    assert "smoke-test dev: dev: 5 checks passed" in project.ran.stderr
    assert "pyarrow==" in (project.root / "stageway.lock").read_text()
    planned = project.must("plan", "people:1", DEV_KEY=project.keys["secondary"])
    assert "requests need a key or a token (keys.json has their digests)" in planned.stdout


def test_a_request_needs_one_of_the_two_keys(project: Project) -> None:
    endpoint = project.endpoint
    for key in project.keys.values():
        assert ask(endpoint, key)[0] == 200
        assert json.loads(ask(endpoint, key)[2]) == [{"name": "Ada Lovelace", "score": 72}]
    status, headers, body = ask(endpoint)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert b"asks for a key or a token" in body
    assert ask(endpoint, "x" * 43)[0] == 401
    assert ask(endpoint, path="/metrics", method="GET")[0] == 401
    assert ask(endpoint, project.keys["primary"], path="/metrics", method="GET")[0] == 200
    assert ask(endpoint, path="/", method="GET")[0] == 200


def test_no_service_has_the_key_among_its_arguments_and_variables(project: Project) -> None:
    processes = project.home.processes()
    services = [one for one in processes if "stageway.serving" in one.cmdline()]
    assert services
    assert not [one for one in services if "DEV_KEY" in one.environ()]
    assert not [one for one in processes if set(project.keys.values()) & set(one.cmdline())]


def test_the_named_origin_may_call_from_a_browser(project: Project) -> None:
    endpoint, asked = project.endpoint, {"Access_Control_Request_Method": "POST"}
    status, headers, _ = ask(endpoint, body=b"", method="OPTIONS", Origin=ORIGIN, **asked)
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert ask(endpoint, project.keys["primary"], Origin=ORIGIN)[1]["access-control-allow-origin"] == ORIGIN
    other = ask(endpoint, project.keys["primary"], Origin="https://other.example")[1]
    assert "access-control-allow-origin" not in other


def test_a_body_over_the_limit_is_refused(project: Project) -> None:
    endpoint, key = project.endpoint, project.keys["primary"]
    assert ask(endpoint, key, BODY.ljust(64 * 1024))[0] == 200
    assert ask(endpoint, key, BODY.ljust(64 * 1024 + 1))[0] == 413


@pytest.mark.parametrize(("name", "other"), [("secondary", "primary"), ("primary", "secondary")])
def test_a_rotation_takes_effect_at_once_and_refuses_nobody(project: Project, name: str, other: str) -> None:
    endpoint = project.endpoint
    with Client(endpoint, project.keys[other]) as client:
        old = project.rotate(name)
        assert ask(endpoint, project.keys[name])[0] == 200
        end = time.monotonic() + 60
        while ask(endpoint, old)[0] != 401:
            assert time.monotonic() < end, "the old key is still taken"
        asked = client.seen.total()
        while client.seen.total() < asked + 20:
            assert client.is_alive()
            assert time.monotonic() < end
            time.sleep(0.01)
    assert set(client.seen) == {200}


def test_a_wrong_key_stops_a_run_before_it_places_anything_and_rejects_nothing(project: Project) -> None:
    project.register(3)
    done = project.run("people:2", key="s3cret-of-another-service")
    assert done.returncode == 2, done.stderr
    sentence = "stages.dev.auth.test-key.env: the variable 'DEV_KEY' holds no valid key or token"
    assert sentence in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
    assert ask(project.endpoint, project.keys["primary"])[1]["x-stageway-model-version"] == "people:1"
    alone = project.stageway("smoke-test", "people:1", "--stage", "dev", DEV_KEY="s3cret-of-another-service")
    assert alone.returncode == 2
    assert sentence in alone.stderr
    assert project.run("people:2", key=project.keys["secondary"]).returncode == 0
    assert json.loads(ask(project.endpoint, project.keys["primary"])[2]) == [{"name": "Ada Lovelace", "score": 108}]


def test_profile_and_package_need_no_key(project: Project) -> None:
    project.register(4)
    for task in ("profile", "package"):
        project.must(task, "people:3")


def test_what_is_kept_holds_neither_the_field_nor_the_key(project: Project) -> None:
    from pyarrow import parquet

    project.must("down")
    folder = project.root / ".stageway" / "collected" / "people-dev" / "people"
    for designation, column, numbers in (("inputs", "age", {36.0}), ("outputs", "score", {72.0, 108.0})):
        files = folder.glob(f"*/{designation}/**/*.parquet")
        rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
        assert {row[column] for row in rows} == numbers
        assert {row["$aml_model_version"] for row in rows} == {"1", "2"}
        assert not [row for row in rows if "Lovelace" in str(row) or "Bearer" in str(row) or "name" in row]
    kept = [path for path in project.root.rglob("*") if path.is_file()]
    keys = [key.encode() for key in project.keys.values()]
    assert project.root / "keys.json" in kept
    assert not [path for path in kept if any(key in path.read_bytes() for key in keys)]


def test_a_service_that_is_started_again_asks_for_the_same_keys(project: Project) -> None:
    up = subprocess.Popen(
        ["stageway", "up"],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.monotonic() + 60
        while (row := project.row)["health"] != "ready":
            assert up.poll() is None
            assert time.monotonic() < end, row
            time.sleep(0.1)
    finally:
        up.terminate()
        up.communicate(timeout=60)
    assert ask(project.endpoint)[0] == 401
    assert ask(project.endpoint, project.keys["secondary"])[0] == 200
