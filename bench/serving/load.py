"""Load and its truth: ``wrk`` counts, and beside it a client of our own compares replies with predictions."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from bench.serving.models import Trained
from bench.serving.peers import Peer

LUA = """\
local file = io.open(os.getenv("BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, ',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
  io.write(string.format('"bad": %d, "broken": %d}\\n', e.status, e.connect + e.read + e.write + e.timeout))
end
"""
TIMEOUT = 20
CHECKS_A_SECOND = 20
SEED = 7


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured; *bad* are replies other than 2xx and 3xx, *broken* are connections."""

    requests: int
    seconds: float
    p50: float
    p99: float
    bad: int
    broken: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@dataclass
class Truth:
    """How many replies were compared, and the first that was wrong."""

    checked: int = 0
    wrong: int = 0
    first: str = ""

    def take(self, problem: str) -> None:
        self.checked += 1
        if problem:
            self.wrong += 1
            self.first = self.first or problem


@dataclass(frozen=True)
class Asking:
    """Requests to one server: its peer's form, the model's rows, the tolerance of its replies."""

    peer: Peer
    trained: Trained
    port: int
    tolerance: float
    _random: random.Random = field(default_factory=lambda: random.Random(SEED))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.peer.path}"

    def body(self, picked: list[int]) -> bytes:
        return json.dumps(self.peer.form([self.trained.rows[at] for at in picked])).encode()

    def pick(self, count: int) -> list[int]:
        return [self._random.randrange(len(self.trained.rows)) for _ in range(count)]

    def problem(self, status: int, reply: bytes, picked: list[int]) -> str:
        """Say what is wrong with a reply to the rows *picked*, or nothing."""
        if status != 200:
            return f"status {status}: {reply[:200]!r}"
        if not self.peer.answers:
            return ""
        try:
            found = numbers(json.loads(reply))
        except ValueError:
            return f"not a prediction: {reply[:200]!r}"
        wanted = [self.trained.predictions[at] for at in picked]
        if len(found) != len(wanted):
            return f"{len(found)} predictions for {len(wanted)} rows"
        for one, other in zip(found, wanted, strict=True):
            if abs(one - other) > self.tolerance * max(1.0, abs(other)):
                return f"{one!r} in place of {other!r}"
        return ""

    def ask(self, connection: HTTPConnection, picked: list[int]) -> str:
        """Ask once and return the problem, if any."""
        connection.request("POST", self.peer.path, self.body(picked), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return self.problem(reply.status, reply.read(), picked)


def numbers(value: Any) -> list[float]:
    """Return the predictions in a reply of any of the peers. Raises ``ValueError``."""
    if isinstance(value, dict):
        for name in ("predict", "predictions", "result", "outputs", "data"):
            if name in value:
                return numbers(value[name])
    if isinstance(value, list):
        if all(isinstance(one, int | float) for one in value):
            return [float(one) for one in value]
        return [number for one in value for number in numbers(one)]
    if isinstance(value, int | float):
        return [float(value)]
    raise ValueError(f"no predictions in {value!r}")


def wrk(asking: Asking, rows: int, connections: int, seconds: int, core: int | None) -> Load:
    """Let wrk send one body again and again, *connections* at once, from *core*."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "load.lua").write_text(LUA)
        (Path(folder) / "body.json").write_bytes(asking.body(asking.pick(rows)))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT}s", "-s", "load.lua"]
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        done = subprocess.run(
            [*pinned, *command, asking.url],
            cwd=folder,
            env={**os.environ, "BODY": "body.json"},
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 3 * TIMEOUT,
        )
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return Load(**json.loads(result.removeprefix("RESULT ")))


def verify(asking: Asking, connections: int = 16, each: int = 25) -> Truth:
    """Before the load: ask with *connections* at once, each request for other rows, and compare every reply."""
    truth = Truth()

    def client(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", asking.port, timeout=TIMEOUT)
        for _ in range(each):
            picked = asking.pick(1 + number % 3)
            try:
                problem = asking.ask(connection, picked)
            except (OSError, HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
                connection.close()
            truth.take(problem)
        connection.close()

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(client, range(connections)))
    return truth


@contextmanager
def checked(asking: Asking, rows: int) -> Iterator[Truth]:
    """While the load goes on: one connection asks for other rows than it, a few times a second, and compares."""
    truth, stop = Truth(), threading.Event()

    def work() -> None:
        connection = HTTPConnection("127.0.0.1", asking.port, timeout=TIMEOUT)
        while not stop.is_set():
            begun = time.monotonic()
            picked = asking.pick(rows)
            try:
                problem = asking.ask(connection, picked)
            except (OSError, HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
                connection.close()
            truth.take(problem)
            stop.wait(max(0.0, 1 / CHECKS_A_SECOND - (time.monotonic() - begun)))
        connection.close()

    thread = threading.Thread(target=work, name="checks", daemon=True)
    thread.start()
    try:
        yield truth
    finally:
        stop.set()
        thread.join(TIMEOUT)
