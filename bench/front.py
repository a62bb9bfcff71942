"""Measure what the front of the target `local` leaves of a server's requests per second.

    python bench/front.py [--seconds 4] [--rounds 3] [--json]

One granian worker answers after 0, 100 or 300 microseconds of work, over a port of its own and through the front on its
Unix socket; wrk asks with 1, 16 and 64 connections. Needs wrk. The ratio says most where the server is as busy as one
that predicts: with no work at all, wrk and server fill two cores, and the front has to take its time from them. On a
machine that is busy with other things, its processor time a request says more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

APP = """\
import os
import time

WORK = int(os.environ["WORK"]) / 1e6
HEADERS = [("content-type", "application/json")]


async def app(scope, protocol):
    if WORK:
        end = time.perf_counter() + WORK
        while time.perf_counter() < end:
            pass
    protocol.response_bytes(200, HEADERS, b'{"hello": "world"}')
"""


def front(path: str, port: int) -> None:
    """Be the front on *port* of the server at the Unix socket *path*."""
    import uvloop

    from stageway.targets.local.front import Backend, Front

    async def run() -> None:
        made, backend = Front(asyncio.get_running_loop(), "bench"), Backend("server", path)
        backend.ready, backend.weight = True, 1
        made.backends.append(backend)
        made.settle()
        await made.listen(socket.create_server(("127.0.0.1", port)))
        await asyncio.Event().wait()

    uvloop.run(run())


def wrk(port: int, connections: int, seconds: int) -> float:
    """Return the requests per second that wrk gets answered. Raises ``SystemExit`` when one failed."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(f"requests failed:\n{said}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found is not None
    return float(found[1])


def measure(work: int, seconds: int, rounds: int) -> list[dict[str, float]]:
    """Return for each number of connections the requests per second without and with the front."""
    ports = [free_port(), free_port()]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hello.py").write_text(APP)
        path = f"{folder}/hello.sock"
        granian = [
            sys.executable,
            "-m",
            "granian",
            "--interface",
            "rsgi",
            "--no-ws",
            "--log-level",
            "error",
            "hello:app",
        ]
        env = {**os.environ, "WORK": str(work)}
        processes = [
            subprocess.Popen([*granian, "--port", str(ports[0])], cwd=folder, env=env),
            subprocess.Popen([*granian, "--uds", path], cwd=folder, env=env),
            subprocess.Popen([sys.executable, __file__, "--front", path, str(ports[1])]),
        ]
        try:
            for port in ports:
                wait_for(port)
            found = []
            for connections in (1, 16, 64):
                # In turn, so that a busy moment of the machine meets both.
                before = psutil.Process(processes[2].pid).cpu_times()
                pairs = [[wrk(port, connections, seconds) for port in ports] for _ in range(rounds)]
                after = psutil.Process(processes[2].pid).cpu_times()
                direct, fronted = (statistics.median(side) for side in zip(*pairs, strict=True))
                row = {"work_us": work, "connections": connections, "direct": direct, "front": fronted}
                used = after.user + after.system - before.user - before.system
                row["front_cpu_us"] = used * 1e6 / (sum(pair[1] for pair in pairs) * seconds)
                found.append({**row, "ratio": fronted / direct})
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until a whole request is answered on *port*."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                if connection.recv(100).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"nothing answers on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--front", nargs=2, metavar=("SOCKET", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.front:
        front(arguments.front[0], int(arguments.front[1]))
        return
    if shutil.which("wrk") is None:
        sys.exit("wrk is not here; `apt-get install wrk` would supply it")
    rows = [row for work in (0, 100, 300) for row in measure(work, arguments.seconds, arguments.rounds)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print("  work  connections   direct/s    front/s   ratio  front's processor time")
    for row in rows:
        line = "{work_us:4.0f} us  {connections:11.0f} {direct:10,.0f} {front:10,.0f} {ratio:7.2f}"
        line += "  {front_cpu_us:5.1f} us a request"
        print(line.format(**row))


if __name__ == "__main__":
    main()
