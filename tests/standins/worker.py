"""A worker process for the tests: ``worker.py PROJECT JSON``; with ``kill_at`` it dies by SIGKILL at its n-th commit.

Prints one JSON line an event. Made for tests: nothing in the engine knows of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from stageway import store
from stageway.config.workspace import Workspace
from stageway.errors import StagewayError
from stageway.pipelines.runner import Retry, RunEvent, Runner
from stageway.watch.up import up


class Commits:
    """Counts the durable commits of this process, and dies before (or just after) one of them."""

    def __init__(self, kill_at: int | None, after: bool) -> None:
        self.seen, self.kill_at, self.after = 0, kill_at, after
        event.listen(Engine, "commit", self.count)

    def count(self, connection: Connection) -> None:
        if not connection.get_execution_options().get("stageway_write"):
            return
        if threading.current_thread() is not threading.main_thread():
            return  # a heartbeat comes when it likes; the main thread's commits are the same every time
        self.seen += 1
        if self.seen == self.kill_at:
            if self.after:
                raw = connection.connection.dbapi_connection
                assert raw is not None
                raw.commit()
            os.kill(os.getpid(), signal.SIGKILL)


def tell(happened: RunEvent) -> None:
    said = {"kind": happened.kind, "run": happened.run.number, "task": f"{happened.task} {happened.stage}".strip()}
    print(json.dumps(said | {"text": happened.text}), flush=True)


def main(project: Path, how: dict[str, Any]) -> int:
    workspace = Workspace.open(project)
    commits = Commits(how.get("kill_at"), how.get("after", False))
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
    print(json.dumps({"kind": "commits", "text": str(commits.seen)}), flush=True)
    if done is None:
        return 0
    return 4 if done.exit_code is None else done.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
