"""The demo's story, in order: a project, a first version, a better one, one that breaks clients, one that is worse.

Nothing is simulated and nothing is done here that a user could not do by commands: the scaffold writes the project,
tasks register, the watcher reads the registry, a runner carries the runs, the target serves. A demo that was killed
goes on where it was: what is done is asked of registry, ledger and runs, never remembered here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stageway import images, output, scaffold, store
from stageway.config.workspace import FILE, Workspace
from stageway.demo.client import Client, score
from stageway.demo.display import Display, Phase, display
from stageway.demo.steps import Steps
from stageway.demo.training import Trained, Trainer
from stageway.dossier import Dossier
from stageway.errors import ConfigError, RefusedError
from stageway.pipelines.board import board
from stageway.pipelines.restore import restore
from stageway.pipelines.runner import Runner
from stageway.store.runs import Run
from stageway.tasks.base import open_registry
from stageway.tasks.register import register
from stageway.watch.watcher import Watcher

MODEL = "diabetes"
MARK = ".stageway/demo.json"
"""Tells the demo's project from one of the user's."""

SAMPLE = "samples/one-row.json"
ELSEWHERE = ("MLFLOW_TRACKING_URI", "STAGEWAY_DATABASE_URL")


@dataclass(frozen=True)
class Version:
    """One chapter: how the version is trained, and how its run must end."""

    title: str
    arguments: tuple[str, ...]
    outcome: str


VERSIONS = (
    Version("Version 1, the first one", ("--alpha", "1"), "promoted"),
    Version("Version 2, a better one, while a client keeps scoring prod", ("--alpha", "0.1"), "promoted"),
    Version(
        "Version 3, whose training code makes it answer with pairs", ("--alpha", "0.1", "--reply", "pair"), "stopped"
    ),
    Version("Version 4, which looks at three columns only", ("--alpha", "0.1", "--features", "3"), "stopped"),
)


@dataclass(frozen=True)
class Told:
    """How it went: the phases with their seconds, and what the client of the update saw."""

    folder: Path
    phases: tuple[Phase, ...]
    requests: int
    failed: int


def run(folder: Path, on_terminal: bool) -> Told:
    """Tell the story in *folder*, with moving things on a terminal. Raises what ``tell`` raises."""
    return tell(folder, display(on_terminal))


def tell(folder: Path, show: Display) -> Told:
    """Tell the story in *folder*, or its rest where it was interrupted before.

    Raises ``ConfigError`` for a folder that is not the demo's, ``RefusedError`` when it went otherwise.
    """
    for name in ELSEWHERE:
        if os.environ.get(name):
            raise ConfigError(
                f"{name} is set, and the demo is to leave your registry and database alone; unset it first"
            )
    try:
        with output.notes_to(show.note):
            return _Story(folder, show).tell()
    except KeyboardInterrupt:
        show.close()
        _say_what_stays(folder)
        raise
    finally:
        show.close()


def _say_what_stays(folder: Path) -> None:
    if (folder / FILE).exists():
        output.note(
            "what is done is done, and the same command again goes on from there; services that were placed go on "
            f"running; `{_program()} down --workspace {folder}` stops them"
        )


def _program() -> str:
    """Return how the reader can call this program: by its name where that finds it, else by its path."""
    script = Path(sys.executable).with_name("stageway")
    found = shutil.which("stageway")
    if not script.exists() or (found is not None and Path(found).resolve() == script.resolve()):
        return "stageway"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


class _Story:
    def __init__(self, folder: Path, show: Display) -> None:
        self.folder = folder
        self.show = show
        self.requests = self.failed = 0
        self.replies: dict[str, Any] = {}

    def tell(self) -> Told:
        self.workspace = self._project()
        with store.open(self.workspace) as self.store:
            ended = [self._ended(at) for at in range(1, len(VERSIONS) + 1)]
            if all(ended):
                self.show.line(f"The demo has run in {self.folder} already; for another one give --folder a new name.")
            else:
                self._tell_versions()
            self._board()
        return Told(self.folder, tuple(self.show.phases), self.requests, self.failed)

    def _project(self) -> Workspace:
        mark = self.folder / MARK
        if not mark.is_file():
            self.show.line("Stageway's demo: four versions of a model on their way to production, nothing simulated.")
            with self.show.phase("project") as said:
                # Its own repository, also inside another: the commit is recorded with each version.
                made = scaffold.init(MODEL, self.folder, files={MARK: '{"format": 1}\n'}, own_repository=True)
                commit = f", first commit {made.commit[:7]}" if made.commit else ""
                said.append(f"{len(made.files)} files in {self.folder}{commit}")
        return Workspace.open(self.folder)

    def _tell_versions(self) -> None:
        trainer = Trainer(self.workspace)
        try:
            trained = self._set_up(trainer)
            self.runner = Runner(self.workspace, self.store)
            for number, (version, training) in enumerate(zip(VERSIONS, trained, strict=True), start=1):
                self.show.chapter(version.title)
                earlier = self._ended(number)
                if earlier is not None:
                    self.replies[earlier.label] = training.result().reply
                    self.show.line(f"  {earlier.label} had its run before: {earlier.outcome}")
                else:
                    self._version(number, version, training)
        finally:
            trainer.stop()

    def _set_up(self, trainer: Trainer) -> list[Future[Trained]]:
        """Install the service's packages beside the registry's start, which both take seconds; then begin to train."""
        with self.show.phase("set up") as said, ThreadPoolExecutor(1) as beside:
            registry = beside.submit(copy_context().run, lambda: open_registry(self.workspace).ping())
            images.environment(self.workspace)
            trained = [
                trainer.train(str(number), version.arguments, ahead=number > 1)
                for number, version in enumerate(VERSIONS, start=1)
            ]
            registry.result()
            # The first look records what is there already, which is nothing; from now on every version gets its run.
            # (In CI a watcher refuses a state that goes away with the job; that of the demo may.)
            self.watcher = Watcher(self.workspace, self.store, environ={})
            self.watcher.once()
            restore(self.workspace, self.store)
            said.append("the packages of stageway.lock, an MLflow registry on SQLite, a watcher")
        return trained

    def _version(self, number: int, version: Version, training: Future[Trained]) -> None:
        label = self._register(training)
        client = self._client() if number == 2 else None
        try:
            run = self._run(number, label)
            if client is not None:
                client.until(lambda: client.replies[label] >= 100 or bool(client.failures), timeout=60)
        finally:
            if client is not None:
                client.stop()
        if client is not None:
            self._say_update(client)
        if run.outcome != version.outcome:
            raise RefusedError(
                f"{label}: its run {run.outcome or 'waits'} where the demo expects {version.outcome}: {run.reason}; "
                f"`stageway explain {label} --workspace {self.folder}` says more"
            )
        if run.outcome == "stopped":
            self.show.line(f"  {label} is stopped in dev.")
        self._score()

    def _register(self, training: Future[Trained]) -> str:
        with self.show.phase("train") as said:
            trained = training.result()
            said.append(", ".join(f"{name} {value:g}" for name, value in trained.metrics.items()))
        with self.show.phase("register") as said:
            dossier = register(
                Dossier(pipeline=self.workspace.spec.name),
                self.workspace,
                path=trained.folder / "model",
                metrics=[str(trained.folder / "metrics.json")],
                samples=trained.folder / "samples",
            )
            model = dossier.need_model()
            said.append(f"{model.label}, {model.digest[:19]}…, {model.size:,} bytes")
        self.replies[model.label] = trained.reply
        return model.label

    def _run(self, number: int, label: str) -> Run:
        """Let the watcher see the version, and carry its run."""
        with self.show.phase("watch") as said:
            self.watcher.once()
            going = self.store.runs.of(MODEL, str(number))
            if not going:
                raise RefusedError(f"{label}: the watcher started no run for it")
            said.append(f"{label} is new: run {going[0].number} begins")
        run = self.runner.work(run_id=going[0].number, on_event=Steps(self.show, self.store))
        return run if run is not None else going[0]

    def _ended(self, number: int) -> Run | None:
        """Return the run of a version that has ended as it should, if there is one."""
        found = [one for one in self.store.runs.of(MODEL, str(number)) if one.state == "ended"]
        return next((one for one in found if one.outcome == VERSIONS[number - 1].outcome), None)

    def _endpoint(self, stage: str) -> str:
        row = self.store.stages.current(stage)
        if row is None:
            raise RefusedError(f"{stage} holds nothing; `stageway status --workspace {self.folder}` says why")
        return row.endpoint

    def _client(self) -> Client:
        body = (self.workspace.root / SAMPLE).read_bytes()
        client = Client(self._endpoint("prod"), body, self.replies.__getitem__)
        client.start()
        return client

    def _say_update(self, client: Client) -> None:
        self.requests, self.failed = client.requests, len(client.failures)
        self.show.line(f"requests during the update: {self.requests}, {self.failed} failed")
        by = ", ".join(f"{count} by {label}" for label, count in sorted(client.replies.items()))
        self.show.line(f"  one connection, no second try; answered: {by}")
        if client.failures:
            detail = "\n".join(client.failures[:5])
            raise RefusedError(f"{self.failed} of {self.requests} requests failed during the update", detail=detail)

    def _score(self) -> None:
        with self.show.phase("score prod") as said:
            endpoint = self._endpoint("prod")
            scored = score(endpoint, (self.workspace.root / SAMPLE).read_bytes())
            said.append(f"POST {endpoint}/score → {json.dumps(scored.value)}, answered by {scored.version}")

    def _board(self) -> None:
        """Print what every stage holds, as its target reports it."""
        self.show.chapter("The board")
        rows = [("stage", "version", "since", "endpoint", "health")]
        for one in board(self.workspace, self.store):
            since = datetime.fromtimestamp(one.since / 1000).astimezone().strftime("%H:%M:%S") if one.since else "-"
            rows.append((one.stage, one.label or "-", since, one.endpoint or "-", one.health))
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        for row in rows:
            self.show.line(
                "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            )
        where = f"--workspace {shlex.quote(str(self.folder))}"
        self.show.chapter("What to try next")
        program = _program()
        for command, why in (
            (f"status {where}", "the board, and what goes on or waits"),
            (f"explain {MODEL}:4 {where}", "why version 4 is not in prod, and who can move it"),
            (f"releases {where}", "where releases have been"),
            ("approve --help", "let a person decide: add `- approval: {}` to the gates of prod"),
            (f"up {where}", "watch and work; start services that should run"),
            (f"down {where}", "stop the services, which go on running until then"),
        ):
            self.show.line(f"  {program} {command:<{len(where) + 22}} {why}")
