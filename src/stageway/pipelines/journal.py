"""The journal: who may work on a run, and which change follows which. Every method is one transaction.

A worker claims a run under a lease with a token that grows; all it writes carries the token, so that what a worker
writes after another one took over is refused. Leases are kept by heartbeats; the lease of a process that is known to be
dead is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stageway.dossier import Dossier
from stageway.pipelines.ledger import at_work, supersede, unsettled
from stageway.pipelines.steps import PLACING, Step
from stageway.store import Store
from stageway.store.base import Conflict, Lease
from stageway.store.runs import AGAIN, Outcome, Run, TaskRow, TaskState, runs, tasks
from stageway.store.workers import Worker


@dataclass(frozen=True)
class Claimed:
    """A run that is this worker's until its lease ends, and the task to do next."""

    run: Run
    task: TaskRow
    lease: Lease


class Journal:
    """The transactions of one worker."""

    def __init__(self, store: Store, worker: Worker, lease_seconds: float) -> None:
        self.store = store
        self.worker = worker
        self.lease_ms = int(lease_seconds * 1000)

    def claim(self, number: int | None = None) -> Claimed | None:
        """Take the run that is next, or return ``None`` when there is none.

        With *number* only that run, or the one that has to be done before anything else of its pipeline has a turn:
        what a dead worker left behind, and what is not settled.
        """
        if not self._takeable(number):
            return None
        try:
            with self.store.write():
                for run in self._takeable(number):
                    claimed = self._take(run)
                    if claimed is not None:
                        return claimed
        except Conflict:
            pass  # another worker took a run of this pipeline in the same moment
        return None

    def _takeable(self, number: int | None) -> list[Run]:
        """Return the runs that may be taken now, the best first: left behind, not settled, in line."""
        due = self.store.runs.claimable(number)
        busy = {run.pipeline for run in due if at_work(self.store, run)}
        left = [run for run in due if run.state == "running" and run.pipeline not in busy]
        stopped = busy | {run.pipeline for run in left}
        owed = {run.pipeline: run for run in reversed(self.store.runs.begun()) if unsettled(self.store, run)}
        now = self.store.now()
        left += [run for run in owed.values() if run.pipeline not in stopped and (run.not_before or 0) <= now]
        stopped |= owed.keys()
        line = [run for run in due if run.state == "queued" and run.pipeline not in stopped]
        line = sorted(
            (run for run in line if self._its_turn(run)), key=lambda run: (run.origin != "person", run.number)
        )
        if number is None:
            return left + line
        asked = self.store.runs.get(number)
        in_the_way = asked.pipeline if asked is not None and asked.state == "queued" else None
        return [run for run in left + line if run.number == number or (run in left and run.pipeline == in_the_way)]

    def _its_turn(self, run: Run) -> bool:
        """Say whether no older run of the pipeline stands before this one; what a person started does not queue."""
        if run.origin == "person" or run.policy != "every":
            return True
        return run.number == self.store.runs.first_going(run.pipeline)

    def _take(self, run: Run) -> Claimed | None:
        now = self.store.now()
        taken = self.store.runs.change(
            run.number,
            runs.c.token == run.token,
            runs.c.state == run.state,
            state="running",
            token=run.token + 1,
            worker=self.worker.model_dump_json(),
            lease_until=now + self.lease_ms,
            not_before=None,
            reason="",
            stage="",
            started_at=run.started_at or now,
        )
        if not taken:
            return None
        lease = Lease(workspace=self.store.workspace, run=run.number, token=run.token + 1)
        task = next(task for task in self.store.runs.tasks(run.number) if task.state not in ("done", "refused"))
        begun = task.model_copy(update={"state": "running", "attempt": task.attempt + 1, "started_at": now})
        self.store.runs.change_task(
            run.number, task.number, state="running", attempt=begun.attempt, started_at=now, ended_at=None
        )
        fresh = self.store.runs.get(run.number)
        return Claimed(fresh if fresh is not None else run, begun, lease)

    def beat(self, lease: Lease) -> None:
        """Keep the lease. Raises ``LeaseLostError`` when another worker has it."""
        with self.store.write(lease):
            self.store.runs.change(lease.run, lease_until=self.store.now() + self.lease_ms)

    def done(self, claimed: Claimed, dossier: Dossier, then: Step, said: str = "") -> TaskRow:
        """Store a task's result, and what it said, and begin the next one, which is returned."""
        now = self.store.now()
        with self.store.write(claimed.lease):
            self._end_task(claimed, "done", dossier=dossier, detail=said)
            self.store.runs.change(claimed.run.number, lease_until=now + self.lease_ms)
            return self._begin(claimed.run.number, then, now)

    def refused(self, claimed: Claimed, error: str, detail: str, then: Step) -> TaskRow:
        """Store that a task said no, and begin what puts it right."""
        now = self.store.now()
        with self.store.write(claimed.lease):
            self._end_task(claimed, "refused", error=error, detail=detail)
            return self._begin(claimed.run.number, then, now)

    def _begin(self, run: int, step: Step, now: int) -> TaskRow:
        self.store.runs.add_task(run, step.number, step.task, step.stage, state="running", attempt=1, started_at=now)
        return TaskRow(
            number=step.number,
            task=step.task,
            stage=step.stage,
            state="running",
            attempt=1,
            retries=0,
            error="",
            detail="",
            started_at=now,
            ended_at=None,
        )

    def retry(self, claimed: Claimed, error: str, detail: str, seconds: float) -> None:
        """Let any worker try the task again after *seconds*."""
        until = self.store.now() + int(seconds * 1000)
        self._leave(
            claimed, "queued", error, claimed.task.stage, until, retries=claimed.task.retries + 1, detail=detail
        )

    def wait(self, claimed: Claimed, reason: str, detail: str) -> None:
        """Let the run wait for a person (or more evidence): a row, nothing more.

        What a person said while the task was going counts: the run is looked at again, or cancelled.
        """
        number, task = claimed.run.number, claimed.task
        with self.store.write(claimed.lease):
            wanted = self.store.runs.wanted(number)
            if wanted.startswith("cancel"):
                why = wanted.partition(": ")[2]
                self.end(
                    claimed, "cancelled", why, task="cancelled", error=why, detail=detail, exit_code=1, stage=task.stage
                )
            elif wanted == AGAIN:
                self.store.runs.change(number, wanted="")
                self._leave(claimed, "queued", reason, task.stage, None, detail=detail, attempt=task.attempt - 1)
            else:
                # A task that waits has done nothing, so however often it is asked again, it was not begun.
                self._leave(claimed, "waiting", reason, task.stage, None, detail=detail, attempt=task.attempt - 1)

    def release(self, claimed: Claimed, reason: str, *, midway: bool = False) -> None:
        """Give the run back as it was before the task began; any worker may take it at once.

        *midway* says that the task may have done something already: placing then counts as started.
        """
        counts = midway and claimed.task.task in PLACING
        self._leave(claimed, "queued", reason, "", None, attempt=claimed.task.attempt - (0 if counts else 1))

    def end(
        self,
        claimed: Claimed,
        outcome: Outcome,
        reason: str,
        *,
        task: TaskState,
        dossier: Dossier | None = None,
        error: str = "",
        detail: str = "",
        exit_code: int = 0,
        stage: str = "",
    ) -> None:
        """Write how the last task and the run ended, in runs and ledger."""
        with self.store.write(claimed.lease):
            self._end_task(claimed, task, error=error, detail=detail, dossier=dossier)
            self.store.runs.change(
                claimed.run.number,
                state="ended",
                outcome=outcome,
                reason=reason,
                stage=stage,
                exit_code=exit_code,
                worker="",
                lease_until=None,
                ended_at=self.store.now(),
            )
            self.store.ledger.end(claimed.run.pipeline, claimed.run.identity, outcome, reason)

    def _end_task(
        self, claimed: Claimed, state: TaskState, *, error: str = "", detail: str = "", dossier: Dossier | None = None
    ) -> None:
        self.store.runs.change_task(
            claimed.run.number,
            claimed.task.number,
            state=state,
            error=error,
            detail=detail,
            dossier=None if dossier is None else dossier.model_dump_json(),
            ended_at=self.store.now(),
        )

    def _leave(
        self,
        claimed: Claimed,
        state: Literal["queued", "waiting"],
        reason: str,
        stage: str,
        not_before: int | None,
        detail: str = "",
        **task: int,
    ) -> None:
        with self.store.write(claimed.lease):
            # Only a task that runs: an interrupt may come when its result is stored already.
            runs_still = tasks.c.state == "running"
            said = {"state": state, "error": reason, "detail": detail, **task}
            self.store.runs.change_task(claimed.run.number, claimed.task.number, runs_still, **said)
            self.store.runs.change(
                claimed.run.number,
                state=state,
                reason=reason,
                stage=stage,
                worker="",
                lease_until=None,
                not_before=not_before,
            )
            supersede(self.store, claimed.run.pipeline)
