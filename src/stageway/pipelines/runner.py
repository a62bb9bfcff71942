"""Start runs, and carry out what is written down, by any number of processes.

``start`` writes a run down; ``work`` claims runs and does their tasks.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, RefusedError, RegistryError, StagewayError, TryAgainError
from stageway.events import Event, version_created
from stageway.pipelines import ledger
from stageway.pipelines.carrier import Carrier, OnEvent, Retry, RunEvent
from stageway.pipelines.journal import Claimed, Journal
from stageway.pipelines.process import PRESENCE_SECONDS, this_process
from stageway.pipelines.words import clock
from stageway.release import Reference
from stageway.specs import PipelineSpec
from stageway.store import Store
from stageway.store.base import LeaseLostError, under
from stageway.store.runs import Run
from stageway.tasks.base import open_registry

__all__ = ["Retry", "RunEvent", "Runner", "policy"]

LEASE_SECONDS = 15.0
POLL_SECONDS = 0.2


class Runner:
    """Starts and carries runs of one workspace."""

    def __init__(
        self,
        workspace: Workspace,
        store: Store,
        *,
        retry: Retry | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.workspace = workspace
        self.store = store
        self.retry = retry or Retry()
        self.lease_seconds = lease_seconds
        self.journal = Journal(store, this_process(), lease_seconds)

    def start(self, what: Event | Reference | str, cause: str = "") -> Run:
        """Write down a run for one version, which ``work`` carries out.

        Returns the run that goes for this version already, unless a worker is at it: ``TryAgainError``.
        """
        event = what if isinstance(what, Event) else self._event(str(what), cause)
        run, new = ledger.ask(self.store, self.workspace.spec, event, policy(self.workspace.spec))
        if not new and ledger.at_work(self.store, run):
            raise TryAgainError(
                f"{run.label}: run {run.number} by {run.worker} does it; `stageway status` shows how far"
            )
        return run

    def _event(self, reference: str, cause: str) -> Event:
        model = open_registry(self.workspace).get(reference).id
        names = self.workspace.spec.model_names
        if model.name not in names:
            raise RegistryError(f"{model.label}: this pipeline is for {', '.join(names)}")
        event = version_created(model)
        return event.model_copy(update={"cause": cause}) if cause else event

    def resume(self, run: int | Run) -> Run:
        """Let a run that waits be taken again at once."""
        number = run if isinstance(run, int) else run.number
        found = self._run(number)
        if not found.going:
            raise RefusedError(f"run {number} of {found.label} has ended ({found.outcome}): {found.reason}")
        ledger.wake(self.store, found, origin="person")
        return self._run(number)

    def cancel(self, run: int | Run, reason: str) -> Run:
        """End a run: at once when nobody works on it, else after the task that is going.

        What a stage was given is proven, or rolled back, first.
        """
        number = run if isinstance(run, int) else run.number
        found = self._run(number)
        while found.going and not ledger.cancel(self.store, found, reason):
            found = self._run(number)
        return self._run(number)

    def work(
        self,
        *,
        until_idle: bool = True,
        run_id: int | None = None,
        on_event: OnEvent | None = None,
        stop: threading.Event | None = None,
    ) -> Run | None:
        """Carry out what is written down; with *run_id* only that run, which is returned when it ended or waits.

        With *until_idle* returns when nothing is left that could go on by itself. *stop* ends the work after the task
        that is going; Ctrl-C and SIGTERM end it at once. Either way another worker can go on.
        """
        tell = on_event or (lambda event: None)
        stopping = stop or threading.Event()
        with _terminable(stop is None), self._present(not until_idle):
            told = ""
            while not stopping.is_set():
                claimed = self.journal.claim(run_id)
                if claimed is not None:
                    self._carry(claimed, tell, stopping)
                    continue
                if run_id is not None:
                    run = self._run(run_id)
                    if run.state in ("ended", "waiting"):
                        return run
                    told = self._tell_blocked(run, told, tell)
                elif until_idle and not self._expects():
                    return None
                stopping.wait(POLL_SECONDS)
        return None if run_id is None else self._run(run_id)

    def _expects(self) -> bool:
        """Say whether something will go on without a person: a task is tried again, or a run has its turn next."""
        first: dict[str, int] = {}
        for run in self.store.runs.going():
            in_line = first.setdefault(run.pipeline, run.number) == run.number
            if run.state == "queued" and (in_line or run.policy == "latest" or run.origin == "person"):
                return True
        return False

    def _tell_blocked(self, run: Run, told: str, tell: OnEvent) -> str:
        others = [one for one in self.store.runs.going(run.pipeline) if one.number != run.number]
        busy = next((one for one in others if one.state == "running"), None)
        if run.state == "running":
            text = f"run {run.number} is done by {run.worker}"
        elif run.not_before is not None:
            text = f"tries again at {clock(run.not_before)}: {run.reason}"
        elif busy is not None:
            text = f"waits for its turn: run {busy.number} of {busy.label} is going ({busy.worker})"
        else:
            return told
        if text != told:
            tell(RunEvent("blocked", run, "", run.stage, text))
        return text

    def _run(self, number: int) -> Run:
        found = self.store.runs.get(number)
        if found is None:
            raise RegistryError(f"run {number}: there is none; `stageway status` lists runs")
        return found

    def _carry(self, claimed: Claimed, tell: OnEvent, stopping: threading.Event) -> None:
        """Do the run's tasks until it ends, waits, or is somebody else's."""
        carrier = self._carrier(claimed, tell)
        if carrier is None:
            return
        with self._beating(claimed), under(claimed.lease):
            try:
                while carrier.step():
                    if stopping.is_set():
                        carrier.release("the worker was asked to stop")
                        return
            except LeaseLostError as error:
                carrier.say("note", error.message)
            except (KeyboardInterrupt, SystemExit):
                self._let_go(carrier.claimed)
                raise

    def _carrier(self, claimed: Claimed, tell: OnEvent) -> Carrier | None:
        """Return what carries the run; one that this version cannot read ends, so that it stops no other."""
        run = claimed.run
        try:
            spec = self.store.runs.spec(run.number)
            own = spec.model_copy(update={"workspace": self.workspace.spec.workspace})
            return Carrier(replace(self.workspace, spec=own), self.journal, claimed, self.retry, tell)
        except (ValueError, ConfigError) as error:  # pydantic's ValidationError is a ValueError
            reason = (
                f"run {run.number} of {run.label} was stored by another version of Stageway and cannot be read by "
                f"this one; `stageway run {run.label}` starts it anew"
            )
            stage, detail = claimed.task.stage, str(error)
            try:
                self.journal.end(
                    claimed, "failed", reason, task="failed", error=reason, detail=detail, exit_code=2, stage=stage
                )
            except LeaseLostError:
                return None
            tell(RunEvent("ended", self._run(run.number), claimed.task.task, stage, f"failed: {reason}"))
            return None

    def _let_go(self, claimed: Claimed) -> None:
        try:
            self.journal.release(claimed, "interrupted; the same command goes on", midway=True)
        except StagewayError:
            pass  # ended or taken over already, or the store is away: the lease ends by itself

    @contextmanager
    def _beating(self, claimed: Claimed) -> Iterator[None]:
        """Keep the lease in a thread of its own while tasks are done."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self.lease_seconds / 5):
                try:
                    self.journal.beat(claimed.lease)
                except LeaseLostError:
                    return
                except StagewayError:
                    continue  # the store is away; the next beat may reach it

        thread = threading.Thread(target=beat, name=f"lease of run {claimed.run.number}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _present(self, wanted: bool) -> Iterator[None]:
        """Say in the store that a worker lives, for as long as it takes any run."""
        if not wanted:
            yield
            return
        ended = threading.Event()
        worker = self.journal.worker

        def beat() -> None:
            while True:
                try:
                    self.store.workers.beat(worker)
                except StagewayError:
                    pass
                if ended.wait(PRESENCE_SECONDS):
                    return

        thread = threading.Thread(target=beat, name="presence", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            try:
                self.store.workers.remove(worker)
            except StagewayError:
                pass


def policy(spec: PipelineSpec) -> ledger.Policy:
    """Return what happens to older versions that have not started: the policy of the pipeline's first trigger."""
    for trigger in spec.triggers:
        options = trigger.options
        found = options.get("policy") if isinstance(options, dict) else getattr(options, "policy", None)
        if found in ("latest", "every"):
            return "every" if found == "every" else "latest"
    return "latest"


@contextmanager
def _terminable(wanted: bool) -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does."""
    main = threading.current_thread() is threading.main_thread()
    if not wanted or not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
