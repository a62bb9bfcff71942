"""SIGHUP replaces the workers: no request fails, and code that does not start changes nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import sysconfig
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import base_python

SCRIPT = """
import json, os, time
VERSION = {}
def run(data):
    asked = json.loads(data or "{{}}")
    if "wait" in asked:
        open(asked["wait"] + ".began", "w").close()
        while not os.path.exists(asked["wait"]):
            time.sleep(0.01)
    return [os.getpid(), VERSION]
"""


class Load:
    """Clients that ask until told to stop: some keep their connections, some open one for each request."""

    def __init__(self, service: Any) -> None:
        self._service, self._done = service, threading.Event()
        self.errors: list[str] = []
        self.replies: list[Any] = []
        self._threads = [threading.Thread(target=self._ask, args=(keep,)) for keep in (True, True, False, False)]
        for thread in self._threads:
            thread.start()

    def _ask(self, keep: bool) -> None:
        headers = {} if keep else {"connection": "close"}
        with self._service.client() as client:
            while not self._done.is_set():
                try:
                    reply = client.ask("POST", "/score", b"{}", headers)
                except OSError as error:
                    self.errors.append(f"{keep}: {error!r}")
                    client.close()
                    continue
                self.replies.append(reply.json)
                if reply.status != 200:
                    self.errors.append(f"{keep}: {reply.status}")

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def under_load() -> Any:
    with contextlib.ExitStack() as stack:

        def begin(service: Any) -> Load:
            load = Load(service)
            stack.callback(load.stop)
            return load

        yield begin


def said(service: Any, words: str) -> int:
    return sum(words in line for line in service.lines)


def reload(service: Any, until: Any, words: str = "stageway-serving: reloaded, ") -> None:
    before = said(service, words)
    service.process.send_signal(signal.SIGHUP)
    until(lambda: said(service, words) > before)


@pytest.mark.parametrize(("where", "workers"), [("uds", 1), ("port", 2)])
@pytest.mark.slow
def test_no_request_is_lost_over_many_reloads(
    start: Any, until: Any, under_load: Any, tmp_path: Path, where: str, workers: int
) -> None:
    arguments = ["--workers", str(workers), *(["--port", "0"] if where == "port" else [])]
    service = start(SCRIPT.format(0), *arguments, folder=tmp_path).ready()
    load = under_load(service)
    for version in range(1, 6):
        (tmp_path / "score.py").write_text(SCRIPT.format(version))
        reload(service, until)
        until(lambda version=version: load.replies and load.replies[-1][1] == version)
    # The last of the old ones are gone before the load ends.
    until(lambda: len(children(service)) == workers)
    load.stop()
    assert load.errors == []
    assert {reply[1] for reply in load.replies} == set(range(6))
    assert len({reply[0] for reply in load.replies}) == 6 * workers


def children(service: Any) -> list[str]:
    return Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()


def test_code_that_does_not_start_changes_nothing_until_it_is_mended(
    start: Any, until: Any, under_load: Any, tmp_path: Path
) -> None:
    service = start(SCRIPT.format(1), "--workers", "2", folder=tmp_path).ready()
    load = under_load(service)
    script = tmp_path / "score.py"
    broken = {
        "def run(data:\n": "score.py does not import: SyntaxError",
        "def init():\n    raise OSError('no model')\n"
        + SCRIPT.format(2): "init() of score.py raised OSError: no model",
        "import os\nos._exit(3)\n": "a worker ended with exit code 3 before it was ready",
    }
    for text, why in broken.items():
        script.write_text(text)
        reload(service, until, "not reloaded: " + why)
        assert service.lines[-1].endswith("; the workers from before go on")
        assert service.ask("GET", "/readyz").body == b"ready, 2 of 2 workers"
    assert {reply[1] for reply in load.replies} == {1}
    script.write_text(SCRIPT.format(2))
    reload(service, until)
    assert service.score({}).json[1] == 2
    load.stop()
    assert load.errors == []


def test_reloads_that_come_during_a_start_or_a_reload_are_done_after_it(start: Any, until: Any, tmp_path: Path) -> None:
    slow = "import os, time\ndef init():\n    open(f'began{VERSION}', 'w').close()\n"
    slow += "    while not os.path.exists(f'go{VERSION}'):\n        time.sleep(0.01)\n"
    service = start(SCRIPT.format(0) + slow, folder=tmp_path)
    for version in range(2):
        until((tmp_path / f"began{version}").exists)
        (tmp_path / "score.py").write_text(SCRIPT.format(version + 1) + slow)
        for _ in range(3):
            service.process.send_signal(signal.SIGHUP)
        (tmp_path / f"go{version}").touch()
    (tmp_path / "go2").touch()
    until(lambda: said(service, "reloaded, 1 worker") == 2)
    assert service.score({}).json[1] == 2


def test_a_request_outlives_the_reload_of_its_worker(start: Any, until: Any, tmp_path: Path) -> None:
    service = start(SCRIPT.format(1), folder=tmp_path).ready()
    (tmp_path / "score.py").write_text(SCRIPT.format(2))
    with service.client() as client, service.client() as idle:
        idle.ask("GET", "/")
        go = tmp_path / "go"
        client.request("POST", "/score", b'{"wait": "go"}')
        until((tmp_path / "go.began").exists)
        reload(service, until)
        assert service.score({}).json[1] == 2
        # Whoever still has a connection to the old worker is told to leave it.
        assert idle.ask("GET", "/contract.json").headers["connection"] == "close"
        go.touch()
        assert client.getresponse().read().endswith(b",1]")
    until(lambda: len(children(service)) == 1)


def test_a_worker_that_hangs_in_a_request_cannot_hold_up_later_reloads(start: Any, until: Any, tmp_path: Path) -> None:
    service = start(SCRIPT.format(1), "--stop-timeout", "1", folder=tmp_path).ready()
    with service.client() as client:
        client.request("POST", "/score", b'{"wait": "never"}')
        until((tmp_path / "never.began").exists)
        for _ in range(3):
            reload(service, until)
        until(lambda: len(children(service)) == 1)
        assert service.score({}).status == 200


def test_a_killed_worker_is_replaced_at_once_and_the_probes_say_so(start: Any, until: Any, tmp_path: Path) -> None:
    held = "import os, time\ndef init():\n    while os.path.exists('hold'):\n        time.sleep(0.01)\n"
    service = start(SCRIPT.format(1) + held, "--workers", "2", folder=tmp_path).ready()
    assert service.ask("GET", "/readyz").body == b"ready, 2 of 2 workers"
    (tmp_path / "hold").touch()
    os.kill(service.score({}).json[0], signal.SIGKILL)
    until(lambda: service.ask("GET", "/readyz").body == b"ready, 1 of 2 workers")
    assert [service.ask("GET", place).status for place in ("/", "/livez", "/readyz", "/score")] == [200] * 4
    (tmp_path / "hold").unlink()
    until(lambda: service.ask("GET", "/readyz").body == b"ready, 2 of 2 workers")
    assert said(service, "ended by signal 9 (SIGKILL); another is started") == 1


def test_a_service_with_workers_left_goes_on_when_one_does_not_start_again(
    start: Any, until: Any, tmp_path: Path
) -> None:
    service = start(SCRIPT.format(1), "--workers", "2", folder=tmp_path).ready()
    (tmp_path / "score.py").write_text("import nowhere\n")
    os.kill(service.score({}).json[0], signal.SIGKILL)
    until(lambda: said(service, " does not start: score.py does not import: ModuleNotFoundError") >= 2)
    assert service.ask("GET", "/readyz").body == b"ready, 1 of 2 workers"
    assert service.score({}).status == 200
    (tmp_path / "score.py").write_text(SCRIPT.format(1))
    until(lambda: service.ask("GET", "/readyz").body == b"ready, 2 of 2 workers")


def test_a_worker_whose_event_loop_stands_still_is_replaced(start: Any, until: Any) -> None:
    # A regular expression of this kind holds the interpreter's lock until it ends, which is never.
    hang = "    if data == 'hang':\n        re.match('(a+)+$', 'a' * 64 + 'b')\n"
    script = "import os, re\ndef run(data):\n" + hang + "    return os.getpid()\n"
    service = start(script, "--worker-timeout", "1").ready()
    first = service.score(b"").json
    with service.client() as client:
        client.request("POST", "/score", b"hang")
        until(lambda: said(service, "worker 1 did not answer for 1 s and is killed"))
        until(lambda: service.score(b"").json != first)


def test_a_signal_in_the_first_moments_is_a_reload_later(start: Any, until: Any, tmp_path: Path) -> None:
    # Read where the layers are added, which is before anything heavy is imported.
    (tmp_path / "early.pth").write_text("import os, signal; os.kill(os.getpid(), signal.SIGHUP)\n")
    layers = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    service = start(SCRIPT.format(1), environment={"STAGEWAY_SITE": layers}).ready()
    until(lambda: said(service, "reloaded, 1 worker"))


def test_a_terminal_that_goes_away_ends_the_service_and_a_signal_on_it_reloads(
    until: Any, layer: Path, tmp_path: Path
) -> None:
    """The first process of a session has a controlling terminal, and gets SIGHUP when that is gone."""
    log = tmp_path / "log"
    (tmp_path / "score.py").write_text(SCRIPT.format(1))
    given = [base_python(), "-S", "-s", "-P", "-m", "stageway.serving", "--port", "0", "--entry-script", "score.py"]
    environment = {"PYTHONPATH": str(layer), "STAGEWAY_SITE": sysconfig.get_path("purelib")}
    with log.open("wb") as out:
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            # These tests may run below nohup, which would make the service outlive its terminal.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.execve(given[0], given, environment)
    try:
        until(lambda: " ready on " in log.read_text())
        os.kill(pid, signal.SIGHUP)
        until(lambda: "reloaded, 1 worker" in log.read_text())
    finally:
        os.close(terminal)
    ended = [0, 0]

    def gone() -> bool:
        ended[:] = os.waitpid(pid, os.WNOHANG)
        return ended[0] == pid

    try:
        until(gone)
    finally:
        if not ended[0]:
            os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
