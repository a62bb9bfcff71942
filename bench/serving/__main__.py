"""Measure the scoring server beside its peers and its limits, in one go, and say the ratios.

    python -m bench.serving --quick          # what the goals need, in about two minutes
    python -m bench.serving                  # everything, in less than twenty
    python -m bench.serving --docs           # the same, and write it into docs/performance.md

Run it from the project's folder, with the project's Python, on a machine that does nothing else. Each server has one
worker on core 0; wrk and the client that compares replies are on core 1. Needs wrk, taskset and Linux. Peers are
installed with uv into environments of their own, kept between runs; one that does not install is said and left out.
Ends with 1 when a goal is missed, or a reply was wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from platformdirs import user_cache_path

from bench.serving import models, report, venvs
from bench.serving.figures import COMMON, GOAL_CELLS, Cell, Figures, Running, Sample, goals
from bench.serving.load import Asking, checked, verify, wrk
from bench.serving.peers import NAMED, OURS, PEERS, Peer, Place
from bench.serving.server import NotServingError, Server, favour, free_ports, serving

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
WARM_SECONDS = 1
SHOWN: tuple[str, ...] = (
    "stageway",
    "granian",
    "orjson",
    "scikit-learn",
    "numpy",
    "onnxruntime",
    "fastapi",
    "uvicorn",
    "mlflow",
)
SHOWN += ("azureml-inference-server-http", "litserve", "mlserver", "bentoml")


class Bench:
    """One run: the servers one after the other, each through its cells."""

    def __init__(self, given: argparse.Namespace, cores: tuple[int, int] | None) -> None:
        self.given, self.figures = given, Figures()
        self.server_core = cores[0] if cores is not None else None
        self.load_core = cores[1] if cores is not None else None
        self.programs: dict[str, Path] = {}
        for peer in given.peers:
            self._install(peer)

    def _install(self, peer: Peer) -> None:
        if peer.venv in self.programs or peer.name in self.figures.skipped:
            return
        try:
            self.programs[peer.venv] = venvs.program(self.given.venvs, peer.venv)
        except venvs.NotInstalledError as error:
            for other in self.given.peers:
                if other.venv == peer.venv:
                    self.figures.skipped[other.name] = f"does not install: {error}"

    def run(self, trained: dict[str, models.Trained], scratch: Path) -> None:
        """Measure each peer once in all cells, then those that the goals compare in further rounds."""
        for name in self.given.models:
            for peer in self.given.peers:
                if name in peer.models:
                    self._measure(peer, trained[name], self._cells(peer, name), scratch)
        for _ in range(self.given.rounds - 1):
            for name in self.given.models:
                for peer_name, cells in GOAL_CELLS[name].items():
                    if NAMED[peer_name] in self.given.peers:
                        self._measure(NAMED[peer_name], trained[name], list(cells), scratch)

    def _cells(self, peer: Peer, model: str) -> list[Cell]:
        if self.given.quick:
            return list(GOAL_CELLS[model].get(peer.name, ()))
        return [(model, rows, many) for rows in self.given.rows for many in self.given.connections]

    def _measure(self, peer: Peer, trained: models.Trained, cells: list[Cell], scratch: Path) -> None:
        if not cells or peer.name in self.figures.skipped:
            return
        own = scratch / f"{peer.name}-{trained.name}"
        own.mkdir(exist_ok=True)
        place = Place(self.programs[peer.venv], trained.folder, own, free_ports(3))
        tolerance = models.LOOSE if peer.name.endswith("-accelerated") else models.TOLERANCE
        asking = Asking(peer, trained, place.port, tolerance)
        try:
            with serving(peer, place, asking, self.server_core) as server:
                truth = verify(asking)
                if truth.wrong:
                    raise NotServingError(f"{truth.wrong} of {truth.checked} replies are wrong: {truth.first}")
                wrk(asking, 1, COMMON, WARM_SECONDS, self.load_core)
                for cell in cells:
                    self._load(peer, asking, cell, server)
                running = Running(peer.name, trained.name, server.memory(), server.ready, server.processes())
                self.figures.running.append(running)
        except NotServingError as error:
            self.figures.skipped[peer.name] = f"{trained.name}: {error}"
            _say(f"{peer.name}: {error}")

    def _load(self, peer: Peer, asking: Asking, cell: Cell, server: Server) -> None:
        _, rows, connections = cell
        with checked(asking, rows) as truth:
            before = server.cpu()
            load = wrk(asking, rows, connections, self.given.seconds, self.load_core)
            used = server.cpu() - before
        sample = Sample(
            peer.name,
            *cell,
            rate=load.rate,
            p50=load.p50,
            p99=load.p99,
            bad=load.bad,
            broken=load.broken,
            checked=truth.checked,
            wrong=truth.wrong,
            per_cpu=load.requests / max(used, 1e-9),
        )
        self.figures.samples.append(sample)
        wrong = f"  WRONG: {truth.first}" if truth.wrong else ""
        bad = f"  {load.bad} bad, {load.broken} broken" if load.bad or load.broken else ""
        where = f"{peer.name:<21} {cell[0]:<7} {rows:>3} rows  c{connections:<3}"
        _say(f"{where} {load.rate:>10,.0f}/s  p50 {load.p50:>8.2f}  p99 {load.p99:>8.2f} ms{bad}{wrong}")


def accelerate(bench: Bench, trained: dict[str, models.Trained]) -> None:
    """Make the verified ONNX form of the forest with the project's own converter, where that is wanted."""
    peer = NAMED["stageway-accelerated"]
    if peer not in bench.given.peers or "forest" not in trained:
        return
    from bench.serving.accelerated import make

    problem = make(bench.programs[OURS], trained["forest"])
    if problem:
        bench.figures.skipped[peer.name] = problem
        _say(f"{peer.name}: {problem}")


def facts(bench: Bench, begun: float, before: float) -> dict[str, object]:
    """Say what it was measured on, and with which versions."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total / 2**30
    cores = os.cpu_count()
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    versions: dict[str, str] = {}
    for programs in bench.programs.values():
        versions |= {name: one for name, one in venvs.versions(programs).items() if name in SHOWN}
    pinned = "server on core 0, load on core 1" if bench.server_core is not None else "not pinned"
    rounds = f"median of {bench.given.rounds} rounds where goals compare" if bench.given.rounds > 1 else "one round"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{cores} cores ({cpu}), {memory:.0f} GiB, {system}, Python {platform.python_version()}",
        "conditions": f"1 worker, {pinned}, {bench.given.seconds} s a cell, {rounds}, load average before {before:.2f}",
        "commit": commit.stdout.strip(),
        "seconds": round(time.monotonic() - begun),
        "versions": {name: versions[name] for name in SHOWN if name in versions},
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    cache = user_cache_path("stageway-bench")
    parser = argparse.ArgumentParser(
        prog="python -m bench.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(one.name + ("" if one.default else " (not by default)") for one in PEERS)
    parser.add_argument("--quick", action="store_true", help="only the cells that the goals need, one round of 2 s")
    parser.add_argument("--peers", help=f"names with commas between them, of: {names}")
    parser.add_argument("--models", default="ridge,forest", help="default: %(default)s")
    parser.add_argument("--rows", default="1,100", help="rows of a request; default: %(default)s")
    parser.add_argument("--connections", default="1,16,64", help="default: %(default)s")
    parser.add_argument("--seconds", type=int, help="of each cell; default: 3, with --quick 2")
    parser.add_argument("--rounds", type=int, help="of the cells that goals compare; default: 3, with --quick 1")
    parser.add_argument("--venvs", type=Path, default=cache / "venvs", help="folder of the peers; default: %(default)s")
    parser.add_argument("--out", type=Path, default=cache / "serving.json", help="default: %(default)s")
    parser.add_argument(
        "--nice", type=int, help="priority of servers and load, such as -10; for root, on a busy machine"
    )
    parser.add_argument("--docs", action="store_true", help=f"write table and plot into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--again", action="store_true", help="measure nothing: print (and --docs) what --out holds")
    parser.add_argument("--json", action="store_true", help="print what --out gets")
    given = parser.parse_args()
    wanted = given.peers.split(",") if given.peers else [one.name for one in PEERS if one.default]
    unknown = [name for name in wanted if name not in NAMED]
    if unknown:
        parser.error(f"no peer is called {unknown[0]!r}; there are {names}")
    given.peers = [one for one in PEERS if one.name in wanted]
    given.models = given.models.split(",")
    if not set(given.models) <= set(models.MODELS):
        parser.error(f"--models {','.join(given.models)}: there are {', '.join(models.MODELS)}")
    given.rows = [int(one) for one in given.rows.split(",")]
    given.connections = [int(one) for one in given.connections.split(",")]
    given.seconds = given.seconds or (2 if given.quick else 3)
    given.rounds = given.rounds or (1 if given.quick else 3)
    return given


def _cores() -> tuple[int, int] | None:
    """Return the cores of server and load; this process goes to the latter, with all that it starts."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        _say("one core only: nothing is pinned, and the figures say less")
        return None
    os.sched_setaffinity(0, {mine[1]})
    return mine[0], mine[1]


def _measured(given: argparse.Namespace) -> Figures:
    for program, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not here; `apt-get install {package}` would supply it")
    if given.nice:
        os.setpriority(os.PRIO_PROCESS, 0, given.nice)
        favour(os.getpid())
    begun, before = time.monotonic(), os.getloadavg()[0]
    if before > 0.5:
        _say(
            f"the load average is {before:.2f}: others use this machine, so believe the ratios only, and those a little"
        )
    bench = Bench(given, _cores())
    with tempfile.TemporaryDirectory(prefix="stageway-bench-") as scratch:
        folder = given.venvs.parent / "models"
        trained = models.make(str(venvs.program(given.venvs, OURS) / "python"), folder)
        accelerate(bench, {name: trained[name] for name in given.models})
        bench.run(trained, Path(scratch))
    bench.figures.facts = facts(bench, begun, before)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(bench.figures.to_json(), indent=1) + "\n")
    return bench.figures


def _read(path: Path) -> Figures:
    found = json.loads(path.read_text())
    samples = [Sample(**one) for one in found["samples"]]
    return Figures(samples, [Running(**one) for one in found["servers"]], found["skipped"], found["facts"])


def main() -> int:
    given = _arguments()
    figures = _read(given.out) if given.again else _measured(given)
    print(json.dumps(figures.to_json(), indent=1) if given.json else report.terminal(figures))
    if given.docs:
        drawn = report.draw(figures, PAGE.with_name(report.PLOT))
        report.rewrite(PAGE, report.markdown(figures, "python -m bench.serving --docs", drawn))
    _say(f"written to {given.out}")
    missed = [goal for goal in goals(figures) if goal.reached is False]
    wrong = [one for one in figures.samples if one.wrong]
    return 1 if missed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
