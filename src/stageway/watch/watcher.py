"""Read triggers into the ledger and start what it says, each version once.

The ledger row and its run are one transaction: a watcher may die between any two lines, and any number may run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from stageway import output, plugins
from stageway.config.loader import load_pipeline
from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, StagewayError, TryAgainError
from stageway.events import Event
from stageway.pipelines import ledger
from stageway.pipelines.runner import policy
from stageway.registries.base import Registry
from stageway.specs import TriggerSpec
from stageway.store import Store
from stageway.store.marks import Mark
from stageway.store.runs import Run
from stageway.tasks.base import open_registry
from stageway.triggers.base import Trigger

OVERLAP_MS = 300_000
"""How far before the high-water mark a trigger is asked again: a version may become visible late."""

DURABLE = "STAGEWAY_STATE_IS_DURABLE"


class Watcher:
    """One pipeline's triggers. Raises ``ConfigError`` in CI without a database that outlives the job."""

    def __init__(
        self,
        workspace: Workspace,
        store: Store,
        *,
        from_: int | None = None,
        on_start: Callable[[Run], None] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        require_durable(workspace, environ)
        self.workspace = workspace
        self.store = store
        self.from_ = from_
        self.on_start = on_start
        self._stamp = self._file_stamp()
        self._broken = ""
        self._registry: Registry | None = None

    def once(self) -> list[Run]:
        """Read every trigger once; return the runs that were started.

        Versions that are there on the very first pass are skipped, unless they were created at or after *from_* (ms
        since 1970). Raises ``TryAgainError`` when a source is away; the next pass misses nothing.
        """
        self._read_file_again()
        started: list[Run] = []
        for name, spec in _named(self.workspace.spec.triggers):
            started += self._pass(name, self._trigger(spec))
        self.from_ = None
        return started

    def loop(self, interval: float = 2.0, stop: threading.Event | None = None) -> None:
        """Read the triggers every *interval* seconds until *stop*; what goes wrong is said once, and waited for."""
        stopping, away = stop or threading.Event(), ""
        while not stopping.is_set():
            try:
                self.once()
                if away:
                    output.note(_over(away))
                away = ""
            except StagewayError as error:
                if error.message != away:
                    until = "it is back" if isinstance(error, TryAgainError) else "that is over"
                    output.note(f"{error.message}; the watcher goes on when {until}")
                away = error.message
                self._remember(error.message)
            stopping.wait(interval)

    def _pass(self, name: str, trigger: Trigger) -> list[Run]:
        spec, mark = self.workspace.spec, self.store.marks.get(self.workspace.spec.name, name)
        since = None if mark is None else mark.since - OVERLAP_MS
        if since is not None and self.from_ is not None:
            since = min(since, self.from_)
        events = list(trigger.events(since))
        if mark is None:
            events = self._first_pass(name, events)
        known = self.store.ledger.known(spec.name, [event.identity for event in events])
        started: list[Run] = []
        for event in events:
            again = self.from_ is not None and event.at >= self.from_
            if event.identity in known and not again:
                continue
            run = ledger.admit(self.store, spec, event, policy(spec), again=again)
            if run is not None:
                output.note(f"{event.cause}: run {run.number}")
                started.append(run)
                if self.on_start is not None:
                    self.on_start(run)
        self._advance(name, mark, events)
        return started

    def _first_pass(self, name: str, events: list[Event]) -> list[Event]:
        """Write down what was there before the pipeline, and that this was done; return what starts all the same."""
        spec, from_ = self.workspace.spec, self.from_
        old = [event for event in events if from_ is None or event.at < from_]
        with self.store.write():
            if self.store.marks.get(spec.name, name) is not None:
                return events  # another watcher was first; what is new since then starts
            skipped = ledger.skip(self.store, spec, old, ledger.BEFORE)
            self._put(name, max((event.at for event in events), default=0))
        if skipped:
            output.note(
                f"{skipped} version(s) were there before the pipeline and are skipped; `stageway run` takes one"
            )
        return [event for event in events if event not in old]

    def _advance(self, name: str, mark: Mark | None, events: list[Event]) -> None:
        newest = max((event.at for event in events), default=0)
        if mark is not None and (newest > mark.since or mark.problem):
            self._put(name, max(newest, mark.since))

    def _put(self, name: str, since: int, problem: str = "") -> None:
        now = self.store.now()
        # A source whose clock is ahead must not make us miss what it says when its clock is put right.
        mark = Mark(
            pipeline=self.workspace.spec.name, trigger=name, since=min(since, now), read_at=now, problem=problem
        )
        self.store.marks.put(mark)

    def _remember(self, problem: str) -> None:
        try:
            for mark in self.store.marks.all(self.workspace.spec.name):
                if mark.problem != problem:
                    self._put(mark.trigger, mark.since, problem)
        except StagewayError:
            pass  # it is the store that is away

    def _trigger(self, spec: TriggerSpec) -> Trigger:
        if self._registry is None:
            self._registry = open_registry(self.workspace)
        found = plugins.load("trigger", spec.name)
        options = spec.options
        if not isinstance(options, found.Options):
            options = found.Options.model_validate(options if options is not None else {})
        return cast(Trigger, found(options, self.workspace.spec.model_names, self._registry))

    def _read_file_again(self) -> None:
        """Take an edited ``stageway.yml`` for the runs that start from now on; a broken one is said, and not taken."""
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.workspace = replace(self.workspace, spec=load_pipeline(self.workspace.file))
        except ConfigError as error:
            output.note(f"{error.message}; the watcher goes on with the file as it was")
            return
        output.note(f"{self.workspace.file.name} was read again; runs that are going keep theirs")

    def _file_stamp(self) -> tuple[int, int] | None:
        try:
            found = self.workspace.file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def require_durable(workspace: Workspace, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse to watch from a CI job whose state goes away with it: each job would look for the first time."""
    in_ci = environ.get("CI", "").lower() in ("true", "1")
    embedded = workspace.database_url == f"sqlite:///{workspace.state / 'state.db'}"
    if in_ci and embedded and environ.get(DURABLE) != "1":
        raise ConfigError(
            f"CI=true, and the state is in {workspace.state}, which a job does not keep: set STAGEWAY_DATABASE_URL (or "
            f"workspace.database in {workspace.file.name}) to a database, or {DURABLE}=1 if this folder is kept"
        )


def _over(problem: str) -> str:
    """Say that *problem*, as it was said before, is no more."""
    who, silent, _ = problem.partition(" does not answer")
    return f"{who.rstrip(':')} answers again" if silent else f"the watcher goes on; this is over: {problem}"


def _named(triggers: tuple[TriggerSpec, ...]) -> list[tuple[str, TriggerSpec]]:
    """Give each trigger a name that stays when its options are edited: its own, numbered from the second on."""
    seen: dict[str, int] = {}
    found: list[tuple[str, TriggerSpec]] = []
    for spec in triggers:
        seen[spec.name] = seen.get(spec.name, 0) + 1
        found.append((spec.name if seen[spec.name] == 1 else f"{spec.name} {seen[spec.name]}", spec))
    return found
