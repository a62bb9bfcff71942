"""What happens to a version that was seen: it starts a run, waits for its turn, or is skipped; once, with a reason.

Ledger row, run and first task are one transaction: who sees the version may die between any two lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from stageway.events import Event
from stageway.pipelines.process import is_dead
from stageway.pipelines.steps import PLACING, SETTLING, steps
from stageway.specs import PipelineSpec
from stageway.store import Store
from stageway.store.runs import Run, runs

Policy = Literal["latest", "every"]

BEFORE = "before the pipeline"
"""Why versions that were there on the first look are skipped."""


def admit(store: Store, spec: PipelineSpec, event: Event, policy: Policy, *, again: bool = False) -> Run | None:
    """Start a run for what a trigger saw, or return ``None`` when the ledger has it.

    With *again* a version that was skipped because it was there before the pipeline starts after all.
    """
    with store.write():
        if not store.ledger.see(spec.name, event):
            row = store.ledger.lock(spec.name, event.identity)
            if not again or row is None or (row.ended, row.reason) != ("skipped", BEFORE):
                return None
        number = _queue(store, spec, event, "trigger", policy)
        supersede(store, spec.name)
        return store.runs.get(number)


def skip(store: Store, spec: PipelineSpec, events: Iterable[Event], reason: str) -> int:
    """Write down what starts nothing, and why; return how many were new."""
    new = 0
    with store.write():
        for event in events:
            if store.ledger.see(spec.name, event):
                store.ledger.end(spec.name, event.identity, "skipped", reason)
                new += 1
    return new


def ask(store: Store, spec: PipelineSpec, event: Event, policy: Policy) -> tuple[Run, bool]:
    """Return the run that a person asked for, and whether it is new; one that is going is the one.

    A run that waits for its turn behind others is the person's from now on, and goes next.
    """
    with store.write():
        store.ledger.see(spec.name, event)
        store.ledger.lock(spec.name, event.identity)
        going = store.runs.going_for(spec.name, event.identity)
        if going is None:
            number = _queue(store, spec, event, "person", policy)
            supersede(store, spec.name)
        else:
            number = going.number
            wake(store, going, origin="person")
        run = store.runs.get(number)
    if run is None:
        raise RuntimeError(f"run {number} was not stored")
    return run, going is None


def wake(store: Store, run: Run, **values: str) -> bool:
    """Let a run that waits (for a person or another try) be taken at once; ``False`` when it has ended.

    One that goes keeps its *values*, and looks again before it waits.
    """
    return store.runs.wake(run.number, **values)


def cancel(store: Store, run: Run, reason: str) -> bool:
    """End a run, or have its worker end it; ``False`` when it began to wait meanwhile, or has ended."""
    with store.write():
        if end(store, run, "cancelled", reason, exit_code=1):
            return True
        return store.runs.change(
            run.number, runs.c.state.in_(("queued", "running")), wanted=f"cancel: {reason}", not_before=None
        )


def supersede(store: Store, pipeline: str) -> list[Run]:
    """End the queued and waiting runs that a newer version makes pointless; return them.

    Under the policy ``latest`` a version gives way to a newer one. What a person started gives way only to what was
    started after it.
    """
    newest = store.runs.going(pipeline, policy="latest")
    ended: list[Run] = []
    for run in store.runs.going(pipeline) if newest else ():
        by = next((other for other in reversed(newest) if _gives_way(run, other)), None)
        if by is None or run.state not in ("queued", "waiting"):
            continue
        if end(store, run, "superseded", f"superseded by {by.label} (run {by.number})", exit_code=1):
            ended.append(run)
    return ended


def _gives_way(run: Run, other: Run) -> bool:
    if run.origin == "person" and other.number <= run.number:
        return False
    return (other.model.created, other.number) > (run.model.created, run.number) and other.model.name == run.model.name


def end(
    store: Store,
    run: Run,
    outcome: Literal["superseded", "cancelled", "expired"],
    reason: str,
    *,
    exit_code: int,
) -> bool:
    """End a run that nobody works on; ``False`` when somebody does by now, or when it is ``unsettled``."""
    with store.write():
        if store.runs.lock(run.number) not in ("queued", "waiting") or unsettled(store, run):
            return False
        current = [task for task in store.runs.tasks(run.number) if task.state in ("queued", "waiting", "running")]
        ended = store.runs.change(
            run.number,
            runs.c.state.in_(("queued", "waiting")),
            state="ended",
            outcome=outcome,
            reason=reason,
            exit_code=exit_code,
            ended_at=store.now(),
        )
        if ended:
            for task in current:
                store.runs.change_task(run.number, task.number, state="cancelled", error=reason, ended_at=store.now())
            store.ledger.end(run.pipeline, run.identity, outcome, reason)
        return ended


def unsettled(store: Store, run: Run) -> bool:
    """Say whether a stage may hold what nothing has proven yet, so that the run's task is to be done first."""
    task = next((one for one in store.runs.tasks(run.number) if one.state in ("queued", "waiting", "running")), None)
    if task is None or task.state == "waiting":
        return False
    return task.task in SETTLING or (task.task in PLACING and task.attempt > 0)


def at_work(store: Store, run: Run) -> bool:
    """Say whether a worker holds *run*: its lease has not ended, and it is not known to be dead."""
    if run.state != "running" or run.worker is None or (run.lease_until or 0) < store.now():
        return False
    return not is_dead(run.worker)


def _queue(store: Store, spec: PipelineSpec, event: Event, origin: Literal["trigger", "person"], policy: Policy) -> int:
    number = store.runs.add(spec, event.model, identity=event.identity, cause=event.cause, origin=origin, policy=policy)
    first = steps(spec)[0]
    store.runs.add_task(number, first.number, first.task, first.stage)
    store.ledger.started(spec.name, event.identity, number)
    return number
