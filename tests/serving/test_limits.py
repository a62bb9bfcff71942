"""Limits and bad input over HTTP: what is too large, too slow or malformed is answered, and nobody else suffers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stageway.serving.control import ControlFile
from stageway.serving.lane import MOST_LOST

MEGABYTE = 1024 * 1024
SCRIPT = """
import json, os, time

def run(data):
    asked = json.loads(data)
    if asked == "hang":
        while not os.path.exists("released"):
            time.sleep(0.01)
    if asked == "exit":
        raise SystemExit(3)
    return len(data)
"""
PATIENCE = 20.0


@pytest.fixture(scope="module")
def service(start: Any) -> Any:
    return start(SCRIPT, "--max-body", str(MEGABYTE), "--body-timeout", "0.5", "--control", "control").ready()


@contextlib.contextmanager
def connection(service: Any) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as found:
        found.settimeout(PATIENCE)
        found.connect(str(service.uds))
        yield found


def until_closed(found: socket.socket) -> bytes:
    """Return all that comes until the other side closes, or resets."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := found.recv(65536):
            got += part
    return got


def alive(service: Any) -> None:
    assert service.ask("GET", "/").body == b"Healthy"
    assert service.score([1, 2]).json == 6


def post(*lines: str) -> bytes:
    return "\r\n".join(["POST /score HTTP/1.1", "host: a", *lines, "", ""]).encode()


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(service: Any) -> None:
    with connection(service) as client:
        client.sendall(post("content-length: 1073741824"))
        got = until_closed(client)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in got
    assert json.loads(got.partition(b"\r\n\r\n")[2]) == {
        "message": "the body is larger than the 1048576 bytes this service takes"
    }
    alive(service)


def test_a_client_that_sends_it_all_the_same_is_not_read_to_the_end(service: Any) -> None:
    sent = 0
    with connection(service) as client:
        client.sendall(post("content-length: 1073741824"))
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                sent += client.send(bytes(MEGABYTE))
    assert sent < 16 * MEGABYTE
    alive(service)


def test_a_body_a_little_too_large_is_refused_to_a_client_that_sends_first_and_reads_then(service: Any) -> None:
    for size in (MEGABYTE + 1, 2 * MEGABYTE):
        assert service.ask("POST", "/score", b"1" * size).status == 413
    assert service.ask("POST", "/score", b'"%s"' % (b"1" * (MEGABYTE - 2))).json == MEGABYTE


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large(service: Any) -> None:
    with connection(service) as client:
        client.sendall(post("transfer-encoding: chunked"))
        chunk = b"10000\r\n" + b"1" * 65536 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(17):
                client.sendall(chunk)
        got = until_closed(client)
    assert got.startswith(b"HTTP/1.1 413 ")
    with connection(service) as client:
        client.sendall(post("transfer-encoding: chunked", "connection: close") + b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n")
        assert until_closed(client).endswith(b"\r\n\r\n5")
    alive(service)


@pytest.mark.parametrize("kind", ["content-length: 100", "transfer-encoding: chunked"])
def test_a_body_that_never_ends_is_refused(service: Any, kind: str) -> None:
    with connection(service) as client:
        client.sendall(post(kind) + (b"1\r\n[\r\n" if "chunked" in kind else b"["))
        got = until_closed(client)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b"the body took more than its limit of 500 ms" in got
    alive(service)


def test_bodies_that_trickle_do_not_hold_others_up(service: Any) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connection(service)) for _ in range(50)]
        for client in clients:
            client.sendall(post("content-length: 100000") + b"[")
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(0.05):
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.send(b"1")

        writer = threading.Thread(target=trickle)
        writer.start()
        alive(service)
        found = [until_closed(client) for client in clients]
        ended.set()
        writer.join()
    assert all(got.startswith(b"HTTP/1.1 408 ") for got in found)
    alive(service)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ([f"x-{number}: 1" for number in range(5000)], 431),
        (["x-long: " + "1" * MEGABYTE], 431),
        (["content-length: many"], 400),
        (["content-length: -1"], 400),
        (["content-length: 1", "content-length: 2"], 400),
        (["no colon"], 400),
    ],
)
def test_heads_that_are_no_heads(service: Any, head: list[str], status: int) -> None:
    with connection(service) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(post(*head))
        got = until_closed(client)
    assert got == b"" or got.startswith(b"HTTP/1.1 %d " % status)
    alive(service)


def test_what_is_not_http_is_closed(service: Any) -> None:
    with connection(service) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n")
        until_closed(client)
    alive(service)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/score/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("DELETE", "/score", 405),
        ("PUT", "/score", 405),
        ("POST", "/", 405),
        ("POST", "/swagger.json", 405),
        ("BREW", "/score", 405),
    ],
)
def test_unknown_paths_and_methods(service: Any, method: str, path: str, status: int) -> None:
    reply = service.ask(method, path)
    assert reply.status == status
    assert path in reply.json["message"]
    assert ("allow" in reply.headers) == (status == 405)


@pytest.mark.parametrize("name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id"])
def test_an_id_of_more_than_a_hundred_characters(service: Any, name: str) -> None:
    assert service.score([], {name: "i" * 101}).status == 431
    assert service.score([], {name: "i" * 100}).headers[name] == "i" * 100


def test_ids_of_ours_are_all_different(service: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: service.score(number).headers["x-request-id"], range(200)))
    assert len(set(found)) == 200


def test_clients_that_go_away_leave_nothing_in_flight(service: Any, until: Any) -> None:
    for part in (b"", b"[1"):
        for _ in range(20):
            with connection(service) as client:
                client.sendall(post("content-length: 4") + part)
    for _ in range(20):
        with connection(service) as client:
            client.sendall(post("content-length: 2") + b"[]")
    alive(service)
    control = ControlFile.open(service.folder / "control")
    until(lambda: control.in_flight() == 0)
    assert control.total() >= 60
    control.close()


def test_a_run_that_exits_or_hangs_does_not_stop_the_health_page(service: Any) -> None:
    assert service.score("exit").status == 500
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(service.score, "hang")
        for _ in range(3):
            assert service.ask("GET", "/").body == b"Healthy"
        assert not hanging.done()
        (service.folder / "released").touch()
        assert hanging.result(PATIENCE).status == 200


def test_limits_of_time_over_http(start: Any) -> None:
    service = start(SCRIPT, "--scoring-timeout", "0.6", "--queue-wait", "0.2").ready()
    with ThreadPoolExecutor(8) as pool:
        hanging = pool.submit(service.score, "hang")
        replies = [hanging, *(pool.submit(service.score, number) for number in range(3))]
        found = [one.result(PATIENCE) for one in replies]
    assert found[0].status == 500
    assert {reply.status for reply in found[1:]} <= {200, 503}
    for reply in found:
        if reply.status == 503:
            assert reply.headers["retry-after"] == "1"
            assert reply.json["message"].startswith("the service is busy")
    assert service.score([]).status == 200


def test_a_hung_run_is_500_with_its_limit_and_the_next_request_is_served(start: Any) -> None:
    service = start(SCRIPT, environment={"SCORING_TIMEOUT_MS": "300"}).ready()
    reply = service.score("hang")
    assert (reply.status, reply.json) == (500, {"message": "scoring took more than its limit of 300 ms"})
    assert reply.headers["x-ms-run-function-failed"] == "True"
    assert float(reply.headers["x-ms-run-fn-exec-ms"]) >= 300
    assert service.score([]).status == 200
    assert any("score.py" in line and "run" in line for line in service.lines)


HOLDING = """
import os, time

def init():
    while os.path.exists("hold"):
        time.sleep(0.01)

def run(data):
    if "hang" in data:
        time.sleep(600)
    return os.getpid()
"""


def test_a_worker_in_which_too_many_predictions_hang_says_so_and_is_replaced(start: Any, until: Any) -> None:
    service = start(HOLDING, "--scoring-timeout", "0.05").ready()
    victim = service.score([]).json
    (service.folder / "hold").touch()
    assert [service.score("hang").status for _ in range(MOST_LOST)] == [500] * MOST_LOST
    assert service.score([]).status == service.ask("GET", "/readyz").status == 503
    assert service.ask("GET", "/livez").status == 200
    (service.folder / "hold").unlink()
    until(lambda: service.score([]).status == 200)
    assert service.score([]).json != victim
    assert service.ask("GET", "/readyz").body == b"ready, 1 of 1 worker"
    until(lambda: not Path(f"/proc/{victim}").exists())
    assert "stageway-serving: worker 1 has too many predictions that hang; another is started" in service.lines
