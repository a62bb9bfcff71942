"""Measure what the journal adds to a task: the time between two tasks that do nothing, beside two bare SQLite commits.

    python bench/journal.py [--runs 10] [--database URL] [--json]

The commits are durable (WAL, synchronous=FULL) and on the same disk, taken in turn with the runs. The goal is 5 ms a
task on SQLite and 10 ms on PostgreSQL.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

STAGES = 10
GOAL_MS = {"sqlite": 5.0, "postgresql": 10.0}

TASKS = """\
from stageway.release import Model, ModelVersion, Release
from stageway.targets.base import Observed

MODEL = Model(id=ModelVersion(registry="bench", name="m", version="1", created=1), digest="sha256:0" * 8)


class Registry:
    def __init__(self, workspace): ...
    def find(self, version): return MODEL
    def get(self, reference): return MODEL


def register(dossier, workspace, *, version):
    return dossier.having(model=MODEL)


def nothing(dossier, workspace, **inputs):
    return dossier
"""

ENTRY_POINTS = """\
[stageway.tasks]
register = bench_tasks:register
profile = bench_tasks:nothing
package = bench_tasks:nothing
deploy = bench_tasks:nothing
smoke-test = bench_tasks:nothing
promote = bench_tasks:nothing
[stageway.registries]
mlflow = bench_tasks:Registry
"""


def install(folder: Path) -> None:
    """Put tasks that do nothing before the real ones on the path, as a third party's wheel would."""
    (folder / "bench_tasks.py").write_text(TASKS)
    info = folder / "bench_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-tasks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    sys.path.insert(0, str(folder))


def project(folder: Path, database: str | None) -> Path:
    stages = "\n".join(f"  s{number}: {{}}" for number in range(STAGES))
    shared = f"workspace: {{name: bench-{time.time_ns()}, database: '{database}'}}\n" if database else ""
    folder.mkdir()
    (folder / "stageway.yml").write_text(f"{shared}model: m\nstages:\n{stages}\n")
    return folder


class Commits:
    """Two bare durable commits of about a task's bytes."""

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("create table bare (number integer primary key, body text)")

    def two(self) -> float:
        started = time.perf_counter()
        for _ in range(2):
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute("insert into bare (body) values (?)", ("x" * 600,))
            self.connection.execute("COMMIT")
        return time.perf_counter() - started


def measure(root: Path, runs: int, database: str | None) -> tuple[list[float], list[float]]:
    """Return the seconds from task to task, and those of two commits."""
    from stageway import store
    from stageway.config.workspace import Workspace
    from stageway.pipelines.runner import RunEvent, Runner

    workspace = Workspace.open(project(root / "project", database))
    commits, bare, between = Commits(root), [], []
    with store.open(workspace) as opened:
        runner = Runner(workspace, opened)
        for _ in range(runs):
            moments: list[float] = []

            def tell(event: RunEvent, moments: list[float] = moments) -> None:
                if event.kind == "task":
                    moments.append(time.perf_counter())

            run = runner.work(run_id=runner.start("m:1").number, on_event=tell)
            if run is None or run.outcome != "promoted":
                raise SystemExit(f"the run did not end well: {run}")
            between += [later - earlier for earlier, later in itertools.pairwise(moments)]
            bare += [commits.two() for _ in moments]
    return between, bare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--database", help="SQLAlchemy URL; default: SQLite in a temporary folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "site").mkdir()
        install(root / "site")
        between, bare = measure(root, arguments.runs, arguments.database)
    kind = "postgresql" if arguments.database and arguments.database.startswith("postgres") else "sqlite"
    found = {
        "database": kind,
        "tasks": len(between),
        "task_ms_median": round(1000 * statistics.median(between), 3),
        "task_ms_p95": round(1000 * statistics.quantiles(between, n=20)[-1], 3),
        "two_sqlite_commits_ms_median": round(1000 * statistics.median(bare), 3),
        "goal_ms": GOAL_MS[kind],
    }
    found["ratio"] = round(statistics.median(between) / statistics.median(bare), 2)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(
            f"{kind}: {found['task_ms_median']} ms a task (p95 {found['task_ms_p95']}), two bare SQLite commits "
            f"{found['two_sqlite_commits_ms_median']} ms, ratio {found['ratio']}; the goal is {GOAL_MS[kind]} ms"
        )
    return 0 if statistics.median(between) * 1000 <= GOAL_MS[kind] else 1


if __name__ == "__main__":
    sys.exit(main())
