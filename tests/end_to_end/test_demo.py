"""The demo as a new user runs it, watched from outside: over HTTP, by its lines, and by what runs on the machine."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Home

pytestmark = pytest.mark.slow
TASKS = ("register", "profile", "package", "deploy dev", "smoke-test dev", "promote prod", "smoke-test prod")
ENDPOINT = re.compile(r"POST (http://127\.0\.0\.1:\d+)/score")


class Outsider(threading.Thread):
    """A client that knows nothing of Stageway: it writes down every status, version and reply. It never tries again."""

    def __init__(self, endpoint: str, body: bytes, *, keep_alive: bool) -> None:
        super().__init__(daemon=True)
        self.address, self.body, self.keep_alive = urlsplit(endpoint), body, keep_alive
        self.seen: Counter[tuple[int, str, str]] = Counter()
        self.problems: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        connection = self._connect()
        while not self.stopping.is_set():
            try:
                connection.request("POST", "/score", self.body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                content = reply.read().decode()
                self.seen[reply.status, reply.headers.get("x-stageway-model-version", ""), content] += 1
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"{type(error).__name__}: {error}")
                connection.close()
            if not self.keep_alive:
                connection.close()
                connection = self._connect()
            self.stopping.wait(0.005)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(str(self.address.hostname), self.address.port, timeout=30)


@dataclass
class Ran:
    """A demo that came to its end, and what was seen of it from outside."""

    home: Home
    folder: Path
    lines: list[str]
    errors: str
    returncode: int
    outsiders: list[Outsider]

    def line(self, pattern: str) -> str:
        found = [line for line in self.lines if re.search(pattern, line)]
        assert len(found) == 1, f"{pattern}: {found} in\n" + "\n".join(self.lines)
        return found[0]


@pytest.fixture(scope="module")
def ran(new_home: Callable[[], Home]) -> Ran:
    """Run the demo once for all tests of this file; two clients score prod from its first reply to the demo's end."""
    home = new_home()
    process = home.start("demo")
    folder, lines, outsiders = home.path / "stageway-demo", list[str](), list[Outsider]()
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if not outsiders and (found := ENDPOINT.search(line)):
                body = (folder / "samples" / "three-rows.json").read_bytes()
                outsiders = [Outsider(found[1], body, keep_alive=one) for one in (True, False)]
                for outsider in outsiders:
                    outsider.start()
        errors = process.stderr.read()
    code = process.returncode
    for outsider in outsiders:
        outsider.stopping.set()
        outsider.join()
    return Ran(home, folder, lines, errors, code, outsiders)


def test_it_comes_to_its_end(ran: Ran) -> None:
    assert ran.returncode == 0, ran.errors + "\n".join(ran.lines)
    assert ran.errors == ""


def test_the_first_version_goes_all_the_way(ran: Ran) -> None:
    start, end = (at for at, line in enumerate(ran.lines) if line.startswith("Version ") and line[8] in "12")
    names = [line[2:18].strip() for line in ran.lines[start:end] if line.startswith("  ") and line[2] != " "]
    assert names == ["train", "register", "watch", *TASKS, "score prod"]


def test_the_line_of_the_update_says_that_no_request_failed(ran: Ran) -> None:
    found = re.fullmatch(r"requests during the update: (\d+), 0 failed", ran.line("^requests during the update"))
    assert found is not None
    assert int(found[1]) > 100


def test_no_request_from_outside_failed(ran: Ran) -> None:
    for outsider in ran.outsiders:
        assert outsider.problems == []
        assert {status for status, _, _ in outsider.seen} == {200}
        assert {version for _, version, _ in outsider.seen} == {"diabetes:1", "diabetes:2"}
        assert sum(outsider.seen.values()) > 100


PREDICT = """
import json, sys, joblib, numpy
from pathlib import Path
model = joblib.load(next(Path(sys.argv[1]).rglob("model.joblib")))
rows = json.loads(Path(sys.argv[2]).read_text())["data"]
print(json.dumps(model.predict(numpy.asarray(rows, dtype=float)).tolist()))
"""


def test_every_reply_is_what_the_version_in_its_header_predicts(ran: Ran, tmp_path: Path) -> None:
    for version in ("diabetes:1", "diabetes:2"):
        files = tmp_path / version.replace(":", "-")
        assert ran.home.stageway("model", "download", version, files, cwd=ran.folder).returncode == 0
        script = tmp_path / "predict.py"
        script.write_text(PREDICT)
        done = ran.home.stageway(
            "exec", "--", "python", script, files, ran.folder / "samples" / "three-rows.json", cwd=ran.folder
        )
        assert done.returncode == 0, done.stderr
        predicted = json.loads(done.stdout)
        replies = [json.loads(reply) for one in ran.outsiders for _, label, reply in one.seen if label == version]
        assert replies
        for reply in replies:
            assert reply == pytest.approx(predicted, rel=1e-12)


def test_the_third_version_is_stopped_with_the_sentence_that_says_why(ran: Ran) -> None:
    line = ran.line("diabetes:3 may not enter prod")
    assert "contract: the reply of diabetes:3 is array of array(2) of number" in line
    assert "diabetes:2 in prod gives array of number" in line
    assert "  diabetes:3 is stopped in dev." in ran.lines


def test_the_fourth_version_is_stopped_with_the_numbers(ran: Ran) -> None:
    line = ran.line("diabetes:4 may not enter prod")
    assert re.search(r"metric: rmse 62\.98 is worse than diabetes:2 in prod \(53\.45\) by 17\.8 %, more than 2 %", line)


def test_prod_serves_the_second_version_to_the_end(ran: Ran) -> None:
    scored = [line for line in ran.lines if ENDPOINT.search(line)]
    assert [line.rpartition("answered by ")[2].split(" ")[0] for line in scored] == [
        "diabetes:1",
        "diabetes:2",
        "diabetes:2",
        "diabetes:2",
    ]
    assert board(ran.home, ran.folder) == {"dev": ("diabetes:4", "ready"), "prod": ("diabetes:2", "ready")}


def test_the_board_says_what_answers_where(ran: Ran) -> None:
    at = ran.lines.index("The board")
    rows = [line.split() for line in ran.lines[at + 1 : at + 4]]
    assert rows[0] == ["stage", "version", "since", "endpoint", "health"]
    assert [row[:2] for row in rows[1:]] == [["dev", "diabetes:4"], ["prod", "diabetes:2"]]
    assert [row[4] for row in rows[1:]] == ["ready", "ready"]
    for row, version in zip(rows[1:], ("diabetes:4", "diabetes:2"), strict=True):
        assert answered_by(row[3]) == version


def test_it_says_what_to_try_next_and_that_works(ran: Ran) -> None:
    at = ran.lines.index("What to try next")
    tried = []
    for line in ran.lines[at + 1 :]:
        command = line.strip().partition("   ")[0].split()
        if command[1] in ("status", "explain", "releases"):
            done = ran.home.stageway(*command[1:])
            assert done.returncode == 0, (command, done.stderr)
            assert "diabetes:" in done.stdout
            tried.append(command[1])
    assert tried == ["status", "explain", "releases"]


def test_each_version_is_registered_with_metrics_commit_and_digest(ran: Ran) -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ran.folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    shown = [ran.home.stageway("model", "show", f"diabetes:{at}", "--json", cwd=ran.folder) for at in (1, 2, 3, 4)]
    models = [json.loads(done.stdout) for done in shown]
    for one in models:
        assert one["git_commit"] == head
        assert one["git_dirty"] is False
        assert one["metrics"]["rmse"] > 0
        assert one["signature"] is not None
    assert len({one["digest"] for one in models}) == 4


def test_again_it_says_that_it_has_run_and_changes_nothing(ran: Ran) -> None:
    before = board(ran.home, ran.folder)
    again = ran.home.stageway("demo")
    assert again.returncode == 0
    assert again.stdout.startswith(
        "The demo has run in stageway-demo already; for another one give --folder a new name"
    )
    assert board(ran.home, ran.folder) == before


def test_down_leaves_no_process_and_no_open_port(ran: Ran) -> None:
    endpoints = [line.split()[3] for line in ran.lines if line.startswith(("  dev ", "  prod "))]
    assert len(ran.home.processes()) >= 3
    assert ran.home.stageway("down", "--workspace", ran.folder).returncode == 0
    assert ran.home.processes() == []
    for endpoint in endpoints:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(urlsplit(endpoint).port or 0))) != 0


def test_a_folder_of_somebody_else_is_left_alone(home: Home) -> None:
    (home.path / "stageway-demo").mkdir()
    (home.path / "stageway-demo" / "thesis.txt").write_text("years of work")
    done = home.stageway("demo")
    assert done.returncode == 2
    assert "stageway-demo: is not empty (it has thesis.txt); choose another with --folder" in done.stderr
    assert [path.name for path in (home.path / "stageway-demo").iterdir()] == ["thesis.txt"]


def test_a_registry_of_the_users_is_left_alone(home: Home) -> None:
    environment = {**home.environment, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "stageway", "demo"]
    done = subprocess.run(command, cwd=home.path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_URI is set" in done.stderr


def board(home: Home, folder: Path) -> dict[str, tuple[str, str]]:
    """Return what the labels on the target say: the version that each stage serves, and its health."""
    done = home.stageway("status", "--json", "--workspace", folder)
    return {row["stage"]: (row["label"], row["health"]) for row in json.loads(done.stdout)["board"]}


def answered_by(endpoint: str) -> Any:
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
    connection.request("GET", "/")
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.headers["x-stageway-model-version"]


def test_ctrl_c_says_what_stays_and_leaves_nothing_half_done(home: Home) -> None:
    with home.start("demo") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("  deploy dev"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert "Traceback" not in rest + errors
    assert "the same command again goes on from there" in errors
    assert "services that were placed go on running; `stageway down --workspace stageway-demo` stops them" in errors
    status = json.loads(home.stageway("status", "--json", "--workspace", "stageway-demo").stdout)
    assert [row["label"] for row in status["board"] if row["label"]][:1] == ["diabetes:1"]
    assert [(run["model"]["version"], run["state"]) for run in status["runs"]] == [("1", "queued")]
    assert home.stageway("down", "--workspace", "stageway-demo").returncode == 0
    assert home.processes() == []


KILLED_AFTER_EACH_TASK = """
import os, signal, sys
from pathlib import Path
from stageway import demo
from stageway.demo.display import Display

folder, seen = map(Path, sys.argv[1:])

class Killing(Display):
    def _ended(self, name, said, seconds, good):
        super()._ended(name, said, seconds, good)
        boundary = f"{self.heading.partition(',')[0]}: {name}"
        commands = ("project", "set up", "train", "watch", "score prod")
        if name not in commands and boundary not in seen.read_text().splitlines():
            with seen.open("a") as file:
                file.write(boundary + chr(10))
            os.kill(os.getpid(), signal.SIGKILL)

demo.tell(folder, Killing())
"""


@pytest.mark.timeout(1800)
def test_killed_at_every_task_boundary_and_continued_it_ends_on_the_same_board(home: Home, tmp_path: Path) -> None:
    folder, seen, script = home.path / "stageway-demo", tmp_path / "seen", tmp_path / "killed.py"
    script.write_text(KILLED_AFTER_EACH_TASK)
    seen.write_text("")
    command, deaths, last = [sys.executable, str(script), str(folder), str(seen)], 0, ""
    while True:
        done = subprocess.run(command, cwd=home.path, env=home.environment, capture_output=True, text=True)
        if done.returncode == 0:
            last = done.stdout
            break
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        deaths += 1
        shorten(folder)
    boundaries = seen.read_text().splitlines()
    assert deaths == len(boundaries)
    for version, tasks in ((1, TASKS), (2, TASKS), (3, TASKS[:-1]), (4, TASKS[:-1])):
        for task in tasks:
            assert f"Version {version}: {task}" in boundaries
    assert "dev    diabetes:4" in last
    assert "prod   diabetes:2" in last
    assert board(home, folder) == {"dev": ("diabetes:4", "ready"), "prod": ("diabetes:2", "ready")}
    listed = json.loads(home.stageway("model", "list", "--json", "--workspace", folder).stdout)
    assert [one["id"]["version"] for one in listed] == ["4", "3", "2", "1"]
    status = json.loads(home.stageway("status", "--json", "--workspace", folder).stdout)
    assert status["runs"] == []
    assert [(row["model"]["version"], row["ended"]) for row in status["ledger"]] == [
        ("4", "stopped"),
        ("3", "stopped"),
        ("2", "promoted"),
        ("1", "promoted"),
    ]
    # Nothing was placed twice: each stage's history has one line for each version that entered it.
    releases = json.loads(home.stageway("releases", "--json", "--workspace", folder).stdout)
    places = Counter((place["label"], place["stage"]) for one in releases for place in one["places"])
    assert places == {
        ("diabetes:1", "dev"): 1,
        ("diabetes:1", "prod"): 1,
        ("diabetes:2", "dev"): 1,
        ("diabetes:2", "prod"): 1,
        ("diabetes:3", "dev"): 1,
        ("diabetes:4", "dev"): 1,
    }
    assert home.stageway("down", "--workspace", folder).returncode == 0
    assert home.processes() == []


def shorten(folder: Path) -> None:
    """Measure for less long: this test is about the boundaries, and there are many."""
    file = folder / "stageway.yml"
    file.write_text(file.read_text().replace("budget: 3s", "budget: 500ms"))
