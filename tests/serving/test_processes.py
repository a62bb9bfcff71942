"""Draining, stopping, and workers that die: what the keeper relies on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from stageway.serving.control import ControlFile
from tests.serving.conftest import Client, base_python

# One scoring call waits for a file, so that a test decides how long it takes.
SCRIPT = """
import json, os, time

def run(data):
    asked = json.loads(data)
    if "wait" in asked:
        open(asked["wait"] + ".began", "w").close()
        while not os.path.exists(asked["wait"]):
            time.sleep(0.01)
    return {"pid": os.getpid()}
"""


class Asking(threading.Thread):
    """A request that is waited for."""

    def __init__(self, service: Any, value: Any) -> None:
        super().__init__(daemon=True)
        self._service, self._value = service, value
        self.reply: Any = None
        self.start()

    def run(self) -> None:
        self.reply = self._service.score(self._value)

    def answered(self) -> Any:
        self.join(60)
        assert self.reply is not None
        return self.reply


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def seen(service: Any) -> set[int]:
    """Return the workers that answer: each new connection goes to any of them."""
    return {service.score({}).json["pid"] for _ in range(20)}


def waiting(service: Any, go: Path, until: Any) -> Asking:
    """Send a request that is answered when *go* exists, and return once ``run`` has begun."""
    asking = Asking(service, {"wait": str(go)})
    until(Path(f"{go}.began").exists)
    return asking


def test_the_drain_flag_closes_connections_and_the_counters_count(
    start: Any, until: Any, tmp_path: Path, go: Path
) -> None:
    with contextlib.closing(ControlFile.create(tmp_path / "control", 2)) as control:
        service = start(SCRIPT, "--workers", "2", "--control", str(tmp_path / "control")).ready()
        assert control.ready
        with service.client() as client:
            for path in ("/", "/contract.json", "/score?x=1"):
                assert "connection" not in client.ask("GET", path).headers
            # A reply arrives a moment before it counts as answered.
            until(lambda: (control.in_flight(), control.total()) == (0, 2))
            control.draining = True
            for path in ("/", "/contract.json", "/score?x=1", "/nowhere"):
                assert client.ask("GET", path).headers["connection"] == "close"
            control.draining = False
            assert "connection" not in client.ask("GET", "/").headers
        until(lambda: control.in_flight() == 0)
        before = control.total()
        asking = waiting(service, go, until)
        assert (control.in_flight(), control.total()) == (1, before + 1)
        go.touch()
        assert asking.answered().status == 200
        until(lambda: control.in_flight() == 0)
        assert control.total() == before + 1


@pytest.mark.parametrize("head", ["content-length: 100", "transfer-encoding: chunked"])
def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(
    start: Any, until: Any, tmp_path: Path, head: str
) -> None:
    with contextlib.closing(ControlFile.create(tmp_path / "control", 1)) as control:
        service = start(SCRIPT, "--control", str(tmp_path / "control")).ready()
        with service.client() as client:
            client.connect()
            client.sock.sendall(f"POST /score HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n2\r\n".encode())
            until(lambda: control.in_flight() == 1)
        until(lambda: control.in_flight() == 0)
        assert service.score({}).status == 200
        assert not [line for line in service.lines if "granian" in line or "stageway/serving" in line]


def test_a_long_prediction_does_not_stop_the_health_page(start: Any, until: Any, go: Path) -> None:
    service = start(SCRIPT).ready()
    asking = waiting(service, go, until)
    assert service.ask("GET", "/").body == b"Healthy"
    assert service.ask("GET", "/swagger.json").status == 200
    go.touch()
    assert asking.answered().status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_in_flight(start: Any, until: Any, go: Path, number: int) -> None:
    service = start(SCRIPT).ready()
    with service.client() as idle:
        idle.ask("GET", "/")
        asking = waiting(service, go, until)
        service.process.send_signal(number)
        # The idle connection ends at once, the busy one with its answer.
        assert idle.sock.recv(1) == b""
        go.touch()
        assert asking.answered().status == 200
        assert service.ended() == 0
    assert not service.uds.exists()
    assert not [line for line in service.lines if "Traceback" in line]


def test_a_prediction_that_never_ends_cannot_hold_up_a_stop(start: Any, until: Any, go: Path) -> None:
    service = start(SCRIPT, "--stop-timeout", "1").ready()
    with service.client() as client:
        client.request("POST", "/score", json.dumps({"wait": str(go)}))
        until(Path(f"{go}.began").exists)
        service.process.send_signal(signal.SIGTERM)
        assert service.ended() == 0


def test_a_stop_during_the_start_is_heard(start: Any, until: Any, tmp_path: Path) -> None:
    script = "import time\ndef init():\n    open('began', 'w').close()\n    time.sleep(600)\n" + SCRIPT
    service = start(script, folder=tmp_path)
    until((tmp_path / "began").exists)
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_comes_back(start: Any, until: Any, tmp_path: Path, workers: int) -> None:
    with contextlib.closing(ControlFile.create(tmp_path / "control", workers)) as control:
        arguments = ("--workers", str(workers), "--control", str(tmp_path / "control"))
        service = start(SCRIPT, *arguments).ready()
        victim = service.score({}).json["pid"]
        os.kill(victim, signal.SIGKILL)
        until(lambda: service.score({}).json["pid"] != victim)
        until(lambda: len(seen(service) - {victim}) == workers)
        assert service.process.poll() is None
        until(lambda: control.in_flight() == 0)


def test_a_killed_worker_is_missed_although_its_helper_lives_and_the_helper_ends(start: Any, until: Any) -> None:
    fork = "multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,), daemon=True)"
    script = f"import multiprocessing, time\nhelper = {fork}\ndef init():\n    helper.start()\n" + SCRIPT
    script = script.replace('{"pid": os.getpid()}', '{"pid": os.getpid(), "helper": helper.pid}')
    service = start(script, "--stop-timeout", "1").ready()
    first = service.score({}).json
    # The parent looks for helpers once a second.
    service.process.send_signal(signal.SIGHUP)
    until(lambda: any("reloaded, " in line for line in service.lines))
    until(lambda: not alive(first["helper"]))
    second = service.score({}).json
    os.kill(second["pid"], signal.SIGKILL)
    third = service.score({}).json
    assert third["pid"] != second["pid"]
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0
    assert not alive(third["pid"])


def test_a_log_that_nobody_reads_any_more_ends_nothing(until: Any, layer: Path, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(SCRIPT)
    given = [base_python(), "-S", "-s", "-P", "-m", "stageway.serving", "--port", "0", "--entry-script", "score.py"]
    environment = {"PYTHONPATH": str(layer), "STAGEWAY_SITE": sysconfig.get_path("purelib")}
    with subprocess.Popen(given, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            ready = re.compile(rb"ready on http://127.0.0.1:(\d+)")
            port = next(int(found[1]) for found in map(ready.search, process.stderr) if found)
            process.stderr.close()

            def pid() -> Any:
                # A worker that is killed takes along the connections that it has accepted.
                with contextlib.suppress(OSError), contextlib.closing(Client(port)) as client:
                    return client.ask("POST", "/score", b"{}").json["pid"]
                return first

            first = 0
            first = pid()
            os.kill(first, signal.SIGKILL)
            until(lambda: pid() != first)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_what_a_worker_reports_is_never_unpickled(start: Any, tmp_path: Path) -> None:
    script = """
import gc, os
class Evil:
    def __reduce__(self):
        return open, ("unpickled", "w")
def init():
    for one in gc.get_objects():
        if type(one).__name__ == "Duty":
            one._reports.send(Evil())
            one._reports.send_bytes(b"7")
            one._reports.send_bytes(b'["ready"]')
            open("sent", "w").close()
"""
    service = start(script + SCRIPT, folder=tmp_path).ready()
    assert service.score({}).status == 200
    assert (tmp_path / "sent").exists()
    assert not (tmp_path / "unpickled").exists()


def test_a_socket_that_cannot_get_its_name_ends_the_service_before_it_is_ready(start: Any, tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sw") as place,
        contextlib.closing(ControlFile.create(tmp_path / "control", 1)) as control,
    ):
        Path(place, "s").mkdir()
        service = start(SCRIPT, "--uds", f"{place}/s", "--control", str(tmp_path / "control"))
        assert service.ended() == 1
        assert service.lines[-1:] == [f"stageway-serving: cannot start: unix:{place}/s: Is a directory"]
        assert not control.ready
        assert [path.name for path in Path(place).iterdir()] == ["s"]


def test_a_worker_that_cannot_start_again_ends_the_service(start: Any, until: Any, tmp_path: Path) -> None:
    script = "import os\ndef init():\n    if os.path.exists('broken'):\n        raise OSError('no model')\n" + SCRIPT
    service = start(script, folder=tmp_path).ready()
    (tmp_path / "broken").touch()
    os.kill(service.score({}).json["pid"], signal.SIGKILL)
    assert service.ended() == 1
    assert service.lines[-1] == "stageway-serving: cannot start: init() of score.py raised OSError: no model"
    assert not service.uds.exists()


def test_workers_do_not_outlive_their_service(start: Any, until: Any) -> None:
    service = start(SCRIPT, "--workers", "2").ready()
    until(lambda: len(seen(service)) == 2)
    pids = seen(service)
    service.process.kill()
    service.ended()
    until(lambda: not any(alive(pid) for pid in pids))


def test_a_successor_keeps_its_socket_when_its_predecessor_ends(start: Any, until: Any, tmp_path: Path) -> None:
    first = start(SCRIPT).ready()
    second = start(SCRIPT, "--uds", str(first.uds))
    second.ready()
    first.process.send_signal(signal.SIGTERM)
    assert first.ended() == 0
    assert first.ask("GET", "/").body == b"Healthy"
    second.process.send_signal(signal.SIGTERM)
    assert second.ended() == 0
    assert not first.uds.exists()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        # A zombie that nobody has waited for yet is dead.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
