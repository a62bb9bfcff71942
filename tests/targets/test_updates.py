"""Nobody is dropped: updates, rollbacks and shares change under clients that never try again."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from stageway import images
from stageway.errors import RefusedError
from stageway.release import Release
from stageway.targets.base import DeploymentConfig, Want
from stageway.targets.local import LocalTarget
from stageway.targets.local.process import of_place

KINDS = ("keep-alive", "one each", "in two pieces", "slow", "rare")


class Clients:
    """Threads that score without a pause: over connections that stay open, and over a new one for each request.

    Every reply must be what its version answers to its request, from a version that served during the request.
    """

    HEADER = "x-version"

    def path(self, kind: str) -> str:
        return "/slow/0.3" if kind == "slow" else "/"

    def body(self, kind: str, number: int) -> bytes:
        return f"{kind} {number}".encode()

    def right(self, version: str, sent: bytes, body: bytes) -> bool:
        return body == sent

    def __init__(self, endpoint: str, serving: Callable[[], set[str]]) -> None:
        self.port = int(endpoint.rpartition(":")[2])
        self.serving = serving
        self.lost: list[str] = []
        self.seen: Counter[str] = Counter()
        self._end = threading.Event()
        kinds = [self.keep_alive, self.keep_alive, self.one_each, self.in_two_pieces, self.slow, self.rare]
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in kinds]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a client hangs"

    def wait_for_all(self, version: str) -> None:
        """Wait until each kind of client has got another answer from *version*."""
        before, end = self.seen.copy(), time.monotonic() + 30
        while not all(self.seen[f"{kind} {version}"] > before[f"{kind} {version}"] for kind in KINDS):
            assert time.monotonic() < end, f"{version} does not answer everybody: {self.seen}"
            time.sleep(0.02)

    def _run(self, kind: Callable[[], None]) -> None:
        try:
            kind()
        except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
            self.lost.append(f"{kind.__name__}: {error!r}")

    def _check(self, kind: str, before: set[str], status: int, version: str | None, body: bytes, sent: bytes) -> None:
        right = status == 200 and version is not None and self.right(version, sent, body)
        if not right or version not in before | self.serving():
            self.lost.append(f"{kind}: {status} {version} {body[:100]!r}")
        self.seen[f"{kind} {version}"] += 1

    def _over(self, kind: str, connection: http.client.HTTPConnection, number: int = 0) -> None:
        sent = self.body(kind, number)
        before = self.serving()
        connection.request("POST", self.path(kind), sent)
        reply = connection.getresponse()
        self._check(kind, before, reply.status, reply.getheader(self.HEADER), reply.read(), sent)

    def keep_alive(self) -> None:
        connection, number = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20), 0
        while not self._end.is_set():
            self._over("keep-alive", connection, number=(number := number + 1))
        connection.close()

    def one_each(self) -> None:
        while not self._end.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            self._over("one each", connection)
            connection.close()

    def slow(self) -> None:
        """Requests that take longer than the steps of an update."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._end.is_set():
            self._over("slow", connection)
        connection.close()

    def rare(self) -> None:
        """A connection that idles most of the time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._end.wait(0.25):
            self._over("rare", connection)
        connection.close()

    def in_two_pieces(self) -> None:
        """Heads that arrive in two pieces, and wait for ``100 Continue`` before the body."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            stream = connection.makefile("rb")
            while not self._end.is_set():
                before, sent = self.serving(), self.body("in two pieces", 0)
                connection.sendall(f"POST {self.path('in two pieces')} HTTP/1.1\r\nho".encode())
                time.sleep(0.02)
                connection.sendall(b"st: x\r\ncontent-length: %d\r\nexpect: 100-continue\r\n\r\n" % len(sent))
                assert stream.readline().startswith(b"HTTP/1.1 100"), "no 100"
                assert stream.readline() == b"\r\n"
                connection.sendall(sent)
                status = int(stream.readline().split(b" ")[1])
                headers = {}
                while (line := stream.readline()) != b"\r\n":
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers["content-length"]))
                self._check("in two pieces", before, status, headers.get(self.HEADER), body, sent)
            stream.close()


@pytest.mark.slow
def test_six_updates_a_failed_one_and_a_rollback_lose_no_request(local: Any) -> None:
    serving = {"1"}
    endpoint = local.target.apply(local.want(1)).endpoint
    with Clients(endpoint, lambda: set(serving)) as running:
        running.wait_for_all("1")
        for version in (2, 3, 4, 5, 6, 7, 6):
            serving.add(str(version))
            observed = local.target.apply(local.want(version))
            serving.intersection_update({str(version)})
            assert observed.endpoint == endpoint
            assert observed.serving.label == f"diabetes:{version}"
            if version == 4:
                with pytest.raises(RefusedError):
                    local.target.apply(local.want(99, fail="init() raised KeyError: 'x'"))
            running.wait_for_all(str(version))
    assert running.lost == []
    assert sum(running.seen.values()) > 500


@pytest.mark.slow
def test_shares_change_and_revisions_come_back_without_a_lost_request(local: Any) -> None:
    endpoint = local.target.apply(local.want(1)).endpoint
    with Clients(endpoint, lambda: {"1", "2"}) as running:
        for _ in range(3):
            both = local.target.apply(local.want(2, weight=0.25))
            names = {one.label: one.name for one in both.revisions if one.health == "ready"}
            local.target.route("diabetes-dev", {names["diabetes:1"]: 0.5, names["diabetes:2"]: 0.5})
            local.target.route("diabetes-dev", {names["diabetes:2"]: 1.0})
            local.target.apply(local.want(1))
            local.target.apply(local.want(2))
            local.target.apply(local.want(1))
    assert running.lost == []


SLOW_SCRIPT = """\
import json
import os
import time


def init():
    global factor
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "factor.json")) as file:
        factor = json.load(file)


def run(data):
    data = json.loads(data)
    time.sleep(data["sleep"])
    return [factor * value for value in data["data"]]
"""


class ScoringClients(Clients):
    """The same clients for a real service, whose version *n* multiplies by *n*."""

    HEADER = "x-stageway-model-version"

    def path(self, kind: str) -> str:
        return "/score"

    def body(self, kind: str, number: int) -> bytes:
        return json.dumps({"data": [number, 1], "sleep": 0.3 if kind == "slow" else 0}).encode()

    def right(self, version: str, sent: bytes, body: bytes) -> bool:
        factor = int(version.partition(":")[2])
        return bool(json.loads(body) == [factor * value for value in json.loads(sent)["data"]])


@pytest.mark.slow
def test_five_updates_of_real_releases_lose_no_request(times: Any) -> None:
    times.write("score.py", SLOW_SCRIPT)
    target, serving = LocalTarget(times.workspace()), {"times:1"}

    def want(version: int) -> Want:
        model = times.shelf.add(files={"factor.json": str(version)})
        bundle = images.build(times.workspace(), model, times.shelf)
        digests = {"model_digest": model.digest, "image_digest": bundle.digest}
        release = Release(model=model.id, **digests, serve_digest=bundle.manifest.serve_digest, contract_digest="c")
        config = DeploymentConfig(cpu=2)
        return Want(service="times-dev", stage="dev", release=release, config=config, bundle=bundle.folder)

    try:
        first = want(1)
        assert any("cpu and memory are not enforced" in said for said in target.plan(first))
        endpoint = target.apply(first).endpoint
        assert endpoint is not None
        places = of_place(times.workspace().state / "services" / "times-dev" / first.revision)
        assert {process.environ()["OMP_NUM_THREADS"] for process in places} == {"2"}
        with ScoringClients(endpoint, lambda: set(serving)) as running:
            running.wait_for_all("times:1")
            for version in range(2, 7):
                serving.add(f"times:{version}")
                target.apply(want(version))
                serving.intersection_update({f"times:{version}"})
                running.wait_for_all(f"times:{version}")
        assert running.lost == []
    finally:
        target.down()
