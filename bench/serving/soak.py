"""Ask services everything that clients do, well and badly, for minutes, and see whether their memory stays flat.

    python bench/serving/soak.py [--seconds 180 | --requests 4000] [--workers 2] [--json]

One service runs an entry script, one a scikit-learn model without a script, both with data collection, metrics and an
OTLP endpoint that is down. Clients send good requests, broken ones, large ones, ones that are too large, ones that stop
halfway, and scrapes. The resident memory of every worker is printed on the way. After a warm-up of a third, a line is
fitted to it over the requests; it ends with 1 when a worker's line rises by more than what is noise, or when a good
request gets a wrong answer.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SCRIPT = """
import json

def run(data):
    rows = json.loads(data)["data"]
    if not rows:
        raise ValueError("no rows")
    print("scored", len(rows))
    return [sum(row) for row in rows]
"""
MODEL = """
import joblib, numpy, sys
from sklearn.linear_model import LinearRegression
rows = numpy.random.default_rng(0).normal(size=(200, 4))
joblib.dump(LinearRegression(fit_intercept=False).fit(rows, rows.sum(axis=1)), sys.argv[1])
"""
MAX_BODY = 3_000_000
CLIENTS = 4
NOISE_SHARE, NOISE_BYTES = 0.03, 4_000_000
"""How much a fitted line may rise: allocators keep what they had at a peak, and the peak of big bodies is random."""
JSON = {"content-type": "application/json"}


@dataclass
class Service:
    """One service, and how much memory each of its workers had after how many requests."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    memory: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    done: int = 0

    def look(self) -> None:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                self.memory.setdefault(child.pid, []).append((self.done, child.memory_info().rss))

    def check(self, right: bool, what: str) -> None:
        if not right:
            self.wrong.append(what)


@dataclass
class Line:
    """What the memory of one worker did after the warm-up, in bytes."""

    service: str
    pid: int
    begin: float
    end: float
    rise: float
    a_request: float

    @property
    def flat(self) -> bool:
        return self.rise <= NOISE_SHARE * self.begin + NOISE_BYTES


class Client(threading.Thread):
    """Asks one service until it is told to stop, on connections that it keeps or drops as it likes."""

    def __init__(self, service: Service, seed: int, go_on: Callable[[], bool]) -> None:
        super().__init__(name=f"client {seed}", daemon=True)
        self._service, self._random, self._go_on = service, random.Random(seed), go_on
        self._connection = self._connect()
        self._acts = (
            (60, self._good),
            (3, self._large),
            (8, self._broken),
            (4, self._failing),
            (4, self._too_large),
            (6, self._leave_halfway),
            (4, self._elsewhere),
            (3, self._flood),
            (3, self._scrape),
            (2, self._reconnect),
        )

    def run(self) -> None:
        weights = [weight for weight, _ in self._acts]
        while self._go_on():
            (_, act) = self._random.choices(self._acts, weights)[0]
            try:
                act()
            except (OSError, http.client.HTTPException):
                self._reconnect()
            self._service.done += 1

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=60)

    def _reconnect(self) -> None:
        self._connection.close()
        self._connection = self._connect()

    def _ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] = JSON) -> tuple[int, bytes]:
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        return reply.status, reply.read()

    def _score(self, count: int) -> None:
        rows = [[self._random.randrange(100) for _ in range(4)] for _ in range(count)]
        status, body = self._ask("POST", "/score", json.dumps({"data": rows}).encode())
        expected = [float(sum(row)) for row in rows]
        found = json.loads(body) if status == 200 else []
        found = found["predict"] if isinstance(found, dict) else found
        right = len(found) == count and all(abs(a - b) < 1e-6 for a, b in zip(found, expected, strict=True))
        self._service.check(right, f"{count} rows: {status} {body[:100]!r}")

    def _good(self) -> None:
        self._score(self._random.choice((1, 1, 1, 3, 20)))

    def _large(self) -> None:
        self._score(self._random.randrange(1_000, 20_000))

    def _broken(self) -> None:
        bodies = (b"{", b"", b"\xff\xfe", b'{"data": 1}', b'{"data": [["a"]]}', b"[" * 2000, b'{"data": [[1, 2], [3]]}')
        status, _ = self._ask("POST", "/score", self._random.choice(bodies))
        self._service.check(status in (200, 400, 500), f"broken: {status}")

    def _failing(self) -> None:
        status, _ = self._ask("POST", "/score", b'{"data": []}')
        self._service.check(status in (400, 500), f"failing: {status}")

    def _too_large(self) -> None:
        status, _ = self._ask("POST", "/score", bytes(MAX_BODY + 1000))
        self._service.check(status == 413, f"too large: {status}")
        self._reconnect()

    def _leave_halfway(self) -> None:
        with socket.create_connection(("127.0.0.1", self._service.port), 60) as gone:
            text = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + bytes(200_000)
            gone.sendall(text[: self._random.randrange(10, len(text))])

    def _elsewhere(self) -> None:
        status, _ = self._ask("GET", f"/{self._random.random()}")
        self._service.check(status == 404, f"elsewhere: {status}")
        self._ask("DELETE", "/score")

    def _flood(self) -> None:
        self._ask("GET", "/", headers={f"x-{number}": "y" * 200 for number in range(90)})

    def _scrape(self) -> None:
        status, body = self._ask("GET", "/metrics")
        self._service.check(status == 200 and b"stageway_requests_total" in body, f"scrape: {status}")


@contextlib.contextmanager
def served(name: str, workers: int, collect: bool) -> Iterator[Service]:
    """Start the service called *name*, ``script`` or ``model``, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    given = ["--workers", str(workers), "--max-body", str(MAX_BODY), "--telemetry"]
    if collect:
        given += ["--collect", str(folder / "collected"), "--collect-keep", str(20_000_000)]
    if name == "script":
        (folder / "score.py").write_text(SCRIPT)
        given += ["--entry-script", "score.py"]
    else:
        (folder / "azureml-models").mkdir()
        subprocess.run([sys.executable, "-c", MODEL, folder / "azureml-models" / "model.joblib"], check=True)
        given += ["--framework", "ScikitLearn"]
    down = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    environment = {**os.environ, **down, "AZUREML_MODEL_DIR": "azureml-models"}
    command = [sys.executable, "-m", "stageway.serving", *given]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Service(name, process, _port(folder / "log", process), folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder)


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    while True:
        for line in log.read_text(errors="replace").splitlines():
            if " ready on " in line:
                return int(line.partition("http://127.0.0.1:")[2].partition(",")[0])
        if process.poll() is not None:
            raise SystemExit(log.read_text(errors="replace"))
        time.sleep(0.05)


def line(service: Service, pid: int, looks: list[tuple[int, int]]) -> Line:
    """Fit a line to the memory of a worker over the requests, without the first third."""
    warm = [(done, rss) for done, rss in looks if done >= service.done / 3]
    slope, _ = statistics.linear_regression([done for done, _ in warm], [rss for _, rss in warm])
    few = max(1, len(warm) // 10)
    ends = statistics.median(rss for _, rss in warm[:few]), statistics.median(rss for _, rss in warm[-few:])
    return Line(service.name, pid, *ends, rise=slope * (warm[-1][0] - warm[0][0]), a_request=slope)


def soak(services: list[Service], go_on: Callable[[], bool], say: Callable[[str], None]) -> list[Line]:
    """Let clients ask all *services* as long as *go_on* says, and return what their memory did."""
    seeds = itertools.count()
    clients = [Client(service, next(seeds), go_on) for service in services for _ in range(CLIENTS // len(services))]
    for client in clients:
        client.start()
    spoken = 0.0
    while any(client.is_alive() for client in clients):
        for service in services:
            service.look()
        if time.monotonic() - spoken > 10:
            spoken = time.monotonic()
            for service in services:
                sizes = "  ".join(f"{looks[-1][1] / 1e6:6.1f}" for looks in service.memory.values())
                say(f"{service.name:7} {service.done:8} requests, MB of its processes: {sizes}")
        time.sleep(0.2)
    return [line(service, pid, looks) for service in services for pid, looks in service.memory.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--requests", type=int, default=0, help="stop after so many for each service instead")
    parser.add_argument("--workers", type=int, default=2)
    no_collect = "collect nothing: what writes Parquet is loaded with the first file, which may be late in a short run"
    parser.add_argument("--no-collect", action="store_true", help=no_collect)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    how = given.workers, not given.no_collect
    with served("script", *how) as script, served("model", *how) as model:
        services, end = [script, model], time.monotonic() + given.seconds

        def go_on() -> bool:
            if given.requests:
                return bool(min(service.done for service in services) < given.requests)
            return bool(time.monotonic() < end)

        lines = soak(services, go_on, lambda text: print(text, file=sys.stderr, flush=True))
        wrong = [text for service in services for text in service.wrong]
        done = sum(service.done for service in services)
        ended = [service.name for service in services if service.process.poll() is not None]
    if given.json:
        print(
            json.dumps({"requests": done, "wrong": wrong, "lines": [vars(one) | {"flat": one.flat} for one in lines]})
        )
    else:
        for one in lines:
            growth = f"{one.begin / 1e6:.1f} → {one.end / 1e6:.1f} MB, line {one.rise / 1e6:+.1f} MB"
            verdict = "flat" if one.flat else "GROWS"
            print(f"{one.service:7} process {one.pid}: {growth}, {one.a_request:+.0f} bytes a request: {verdict}")
        print(f"{done} requests, {len(wrong)} wrong answers{': ' + wrong[0] if wrong else ''}")
    return int(bool(wrong or ended) or not all(one.flat for one in lines))


if __name__ == "__main__":
    sys.exit(main())
