"""A worker process for the tests: ``worker.py PROJECT JSON``; with ``kill_at`` it dies by SIGKILL at its n-th commit.

Prints one JSON line an event. Made for tests: nothing in the engine knows of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from stageway import store
from stageway.config.workspace import Workspace
from stageway.errors import StagewayError
from stageway.pipelines.runner import Retry, RunEvent, Runner
from stageway.watch.up import up


def die_at(commit: int, after: bool) -> None:
    """Die before (or just after) the n-th durable commit of this process."""
    seen = 0

    def count(connection: Connection) -> None:
        nonlocal seen
        if not connection.get_execution_options().get("stageway_write"):
            return
        seen += 1
        if seen == commit:
            if after:
                connection.connection.dbapi_connection.commit()  # type: ignore[union-attr]
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", count)


def tell(happened: RunEvent) -> None:
    said = {"kind": happened.kind, "run": happened.run.number, "task": f"{happened.task} {happened.stage}".strip()}
    print(json.dumps(said | {"text": happened.text}), flush=True)


def main(project: Path, how: dict[str, Any]) -> int:
    workspace = Workspace.open(project)
    if "kill_at" in how:
        die_at(how["kill_at"], how.get("after", False))
    if "up" in how:
        up(workspace, interval=how["up"], on_event=tell)
        return 0
    try:
        with store.open(workspace) as opened:
            retry = Retry(limit=how.get("retries", 5), first=0.01, longest=0.1)
            runner = Runner(workspace, opened, retry=retry, lease_seconds=how.get("lease", 15.0))
            run = runner.start(how["start"], how.get("cause", "")) if "start" in how else None
            done = runner.work(
                run_id=run.number if run else None, on_event=tell, until_idle=how.get("until_idle", True)
            )
    except StagewayError as error:
        print(json.dumps({"kind": "error", "text": error.message}), flush=True)
        return error.exit_code
    return done.exit_code or 0 if done is not None and done.state == "ended" else 4 if done is not None else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
