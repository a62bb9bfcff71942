"""Do one claimed run's tasks, one after the other, and obey the type of what they raise.

Called by ``runner``. A task may be called again after a kill; its result is stored once.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from stageway import output, plugins
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import (
    EXIT_BUG,
    RefusedError,
    RegistryError,
    StagewayError,
    StoreError,
    TryAgainError,
    WaitingError,
)
from stageway.pipelines import logs
from stageway.pipelines.journal import Claimed, Journal
from stageway.pipelines.steps import PLACING, SETTLING, Step, after, inputs
from stageway.pipelines.words import clock
from stageway.release import ModelVersion
from stageway.store.base import LeaseLostError
from stageway.store.runs import Outcome, Run, TaskRow, TaskState
from stageway.tasks.base import open_registry

AGAIN_SECONDS = 0.2
"""Between two attempts to store a result in a database that is away."""

KEPT_NOTES = 40
"""Lines of a task's notes that are stored with its result, for ``stageway explain`` on any machine."""

CRASHES = 10
"""How often a task may take its worker down with it before the run fails."""

Kind = Literal["task", "note", "done", "retry", "waiting", "refused", "failed", "cancelled", "blocked", "ended"]


@dataclass(frozen=True)
class RunEvent:
    """What just happened, for a live display. *seconds* is how long what ended took."""

    kind: Kind
    run: Run
    task: str
    stage: str
    text: str
    seconds: float = 0.0


OnEvent = Callable[[RunEvent], None]


@dataclass(frozen=True)
class Retry:
    """How often a task that raises ``TryAgainError`` is tried again, and how long between tries (seconds).

    *longest* ends the doubling; who asks for a longer wait gets it.
    """

    limit: int = 8
    first: float = 1.0
    longest: float = 120.0

    def seconds(self, retries: int, asked: float) -> float:
        """Return how long to wait: doubled each time, at least what was asked for, never the same for all."""
        return max(asked, min(self.longest, self.first * 2.0**retries)) * random.uniform(1.0, 1.25)  # noqa: S311


class Carrier:
    """One run in this worker's hands: ``step`` until it says that there is nothing more to do."""

    def __init__(self, workspace: Workspace, journal: Journal, claimed: Claimed, retry: Retry, tell: OnEvent) -> None:
        self.workspace = workspace
        self.journal = journal
        self.store = journal.store
        self.claimed = claimed
        self.retry = retry
        self.tell = tell
        self.dossier = self._first_dossier()
        self.notes: list[str] = []
        self.began = time.monotonic()

    def step(self) -> bool:
        """Do one task and store what came of it; ``False`` when this worker is through with the run."""
        task = self.claimed.task
        self.began = time.monotonic()
        self.notes = []
        self.say("task", f"{_name(task)} begins" + (f" (attempt {task.attempt})" if task.attempt > 1 else ""))
        try:
            if task.attempt - task.retries > CRASHES:
                raise StagewayError(f"{_name(task)}: {CRASHES} workers died in this task; see their logs")
            if (ended := self._ended_from_outside()) is not None:
                return self._cancelled(ended)
            self._require_not_held(task)
            with output.notes_to(self._note):
                dossier = self._call(task)
            if dossier.model is not None and dossier.model.id != self.claimed.run.model:
                return self._cancelled(self._gone("was deleted and registered again"))
        except (LeaseLostError, StoreError):
            raise
        except TryAgainError as error:
            return self._tried(task, error)
        except WaitingError as error:
            return self._waits(error)
        except RefusedError as error:
            return self._refused(task, error)
        except RegistryError as error:
            if not self._registered():
                return self._cancelled(self._gone("was deleted from the registry"))
            return self._failed(task, error.message, error.detail, error.exit_code)
        except StagewayError as error:
            return self._failed(task, error.message, error.detail, error.exit_code)
        except Exception as error:  # noqa: BLE001  (a bug in one task must not take the worker down)
            said = f"{_name(task)} broke: {type(error).__name__}: {error}"
            return self._failed(task, said, traceback.format_exc(), EXIT_BUG)
        return self._done(task, dossier)

    def _done(self, task: TaskRow, dossier: Dossier) -> bool:
        if task.task == "rollback":
            return self._rolled_back(task, dossier)
        then = after(self.workspace.spec, task.number)
        if then is None:
            reason = f"{self.claimed.run.label} is in {task.stage}" if task.stage else "every task is done"
            self._end("promoted", reason, task="done", dossier=dossier, stage=task.stage)
            return False
        begun = self._persist(lambda: self.journal.done(self.claimed, dossier, then, self._said()))
        self.say("done", f"{_name(task)} is done")
        self.dossier = dossier
        self.claimed = replace(self.claimed, task=begun)
        return True

    def _waits(self, error: WaitingError) -> bool:
        self._persist(lambda: self.journal.wait(self.claimed, error.message, error.detail))
        self.claimed = replace(self.claimed, run=self._run())
        if self.claimed.run.state == "ended":
            self.say("ended", f"{self.claimed.run.outcome}: {self.claimed.run.reason}")
        else:
            self.say("waiting", error.message)
        return False

    def _tried(self, task: TaskRow, error: TryAgainError) -> bool:
        if task.retries >= self.retry.limit:
            said = f"{error.message} (tried {task.retries + 1} times)"
            return self._failed(task, said, error.detail, error.exit_code)
        seconds = self.retry.seconds(task.retries, error.after)
        self._persist(lambda: self.journal.retry(self.claimed, error.message, error.detail, seconds))
        self.say("retry", f"{error.message}; tries again in {seconds:.1f} s")
        return False

    def _refused(self, task: TaskRow, error: RefusedError) -> bool:
        """Stop the run; a stage that has a bad release now gets the last good one back first."""
        if task.task == "rollback":
            return self._rolled_back(task, self.dossier, problem=error)
        good = None
        if task.task == "smoke-test":
            release = self.dossier.release
            good = self.store.stages.last_good(task.stage, not_release=release.id if release is not None else None)
        if good is None:
            self._end(
                "stopped", error.message, task="refused", error=error.message, detail=error.detail, stage=task.stage
            )
            return False
        self.say("refused", error.message)
        then = Step(number=task.number + 1, task="rollback", stage=task.stage)
        begun = self._persist(lambda: self.journal.refused(self.claimed, error.message, error.detail, then))
        self.claimed = replace(self.claimed, task=begun)
        return True

    def _rolled_back(self, task: TaskRow, dossier: Dossier, problem: StagewayError | None = None) -> bool:
        why = self._refusal()
        if problem is not None:
            said = f"{why}; {task.stage} could not be rolled back: {problem.message}"
            self._end("stopped", said, task="failed", error=problem.message, detail=problem.detail, stage=task.stage)
            return False
        now = self.store.stages.current(task.stage)
        said = f"{why}; {task.stage} was rolled back to {now.label if now is not None else 'the release before'}"
        self._end("stopped", said, task="done", dossier=dossier, stage=task.stage)
        return False

    def _refusal(self) -> str:
        refused = [one.error for one in self.store.runs.tasks(self.claimed.run.number) if one.state == "refused"]
        return refused[-1] if refused else ""

    def _failed(self, task: TaskRow, said: str, detail: str, exit_code: int) -> bool:
        if task.task == "rollback":
            return self._rolled_back(task, self.dossier, problem=StagewayError(said, detail=detail))
        self._end("failed", said, task="failed", error=said, detail=detail, stage=task.stage, exit_code=exit_code)
        return False

    def _cancelled(self, reason: str) -> bool:
        self._end("cancelled", reason, task="cancelled", error=reason, stage=self.claimed.task.stage)
        return False

    def _end(
        self,
        outcome: Outcome,
        reason: str,
        *,
        task: TaskState,
        stage: str,
        dossier: Dossier | None = None,
        error: str = "",
        detail: str = "",
        exit_code: int | None = None,
    ) -> None:
        code = exit_code if exit_code is not None else 0 if outcome == "promoted" else 1
        self._persist(
            lambda: self.journal.end(
                self.claimed,
                outcome,
                reason,
                task=task,
                dossier=dossier,
                error=error,
                detail=detail or self._said(),
                exit_code=code,
                stage=stage,
            )
        )
        if detail:
            logs.write(self.workspace, self.claimed.run.number, _name(self.claimed.task), detail)
        if task == "done":
            self.say("done", f"{_name(self.claimed.task)} is done")
        elif task in ("refused", "failed"):
            self.say(task, error)
        self.claimed = replace(self.claimed, run=self._run())
        self.say("ended", f"{outcome}: {reason}")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.say("note", text)

    def _said(self) -> str:
        """Return what the task said, as far as the journal keeps it; the run's log has it all."""
        return "\n".join(self.notes[-KEPT_NOTES:])

    def say(self, kind: Kind, text: str) -> None:
        task = self.claimed.task
        logs.write(self.workspace, self.claimed.run.number, _name(task), text)
        self.tell(RunEvent(kind, self.claimed.run, task.task, task.stage, text, time.monotonic() - self.began))

    def _call(self, task: TaskRow) -> Dossier:
        given = inputs(task.task, task.stage, self.claimed.run.label)
        if task.task == "rollback":
            given |= {"automatic": True, "reason": self._refusal()}
        dossier = plugins.load("task", task.task)(self.dossier, self.workspace, **given)
        if not isinstance(dossier, Dossier):
            raise TypeError(f"task {task.task!r} returned {type(dossier).__name__}, not a dossier")
        return dossier

    def _first_dossier(self) -> Dossier:
        found = self.store.runs.dossier(self.claimed.run.number)
        return found if found.pipeline else found.having(pipeline=self.workspace.spec.name)

    def _ended_from_outside(self) -> str | None:
        """Say why the run is not to go on: somebody cancelled it, or its version is gone before it is placed.

        What a stage was given already is proven, or rolled back, all the same.
        """
        if self.claimed.task.task in SETTLING:
            return None
        wanted = self.store.runs.wanted(self.claimed.run.number)
        if wanted.startswith("cancel"):
            return wanted.partition(": ")[2]
        if self.claimed.task.task in PLACING and not self._registered():
            return self._gone("was deleted from the registry")
        return None

    def _run(self) -> Run:
        return self.store.runs.get(self.claimed.run.number) or self.claimed.run

    def _gone(self, how: str) -> str:
        return f"{self.claimed.run.label} {how} while run {self.claimed.run.number} was going"

    def _registered(self) -> bool:
        model: ModelVersion = self.claimed.run.model
        try:
            return open_registry(self.workspace).find(model) is not None
        except StagewayError:
            return True  # a registry that is away, or broken, says nothing about the version

    def _require_not_held(self, task: TaskRow) -> None:
        hold = self.store.holds.get(task.stage) if task.task in PLACING else None
        if hold is not None:
            raise WaitingError(
                f"{hold.stage} is held since {clock(hold.since)} by {hold.by} ({hold.reason}): "
                f"`stageway resume {hold.stage}`"
            )

    def release(self, reason: str) -> None:
        """Give the run back before its next task."""
        self._persist(lambda: self.journal.release(self.claimed, reason))

    def _persist(self, change: Callable[[], Any]) -> Any:
        """Store a result; a database that is away for a moment is asked again for as long as the lease may last."""
        until = time.monotonic() + self.journal.lease_ms / 1000
        while True:
            try:
                return change()
            except TryAgainError:
                if time.monotonic() > until:
                    raise
                time.sleep(AGAIN_SECONDS)


def _name(task: TaskRow) -> str:
    return f"{task.task} {task.stage}".rstrip()
