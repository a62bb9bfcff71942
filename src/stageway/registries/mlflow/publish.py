"""Register a version: files first, its row last.

Files are copied (and hashed on the way) into a folder beside their final place, so a killed process leaves no version;
what it left is swept up by the next registration.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stageway.errors import ConfigError, StagewayError
from stageway.registries import content, mlmodel
from stageway.registries.base import NewVersion
from stageway.registries.content import Manifest, Source
from stageway.registries.mlflow.artifacts import Artifacts, join
from stageway.registries.mlflow.connection import EMBEDDED, Connection, MissingError
from stageway.registries.mlflow.describe import Described, describe, write_mlmodel
from stageway.registries.mlflow.incoming import incoming, names_run
from stageway.registries.mlflow.record import DIGEST, Record, tags_of
from stageway.registries.mlflow.runs import MODEL, part_of, run_of

EXPERIMENT = "stageway/{name}"
RUN_TAG = "stageway.registered"
_NOT_IN_ADDRESSES = set("#?%\\")


@dataclass(frozen=True)
class Published:
    """The number of the version, and whether it is new."""

    version: str
    new: bool


@dataclass(frozen=True)
class _Row:
    """What a version's row will say: where its files are, in which run, and which folder there has the record."""

    manifest: Manifest
    source: str
    run_id: str
    record: str
    model_id: str | None = None


class Publisher:
    """Registers versions at one registry."""

    def __init__(self, connection: Connection, artifacts: Artifacts) -> None:
        self.connection = connection
        self.artifacts = artifacts

    def publish(self, want: NewVersion) -> Published:
        """Register *want*, or say which version has the same bytes."""
        return self._from_run(want) if want.path is None else self._from_path(want, want.path)

    def _from_path(self, want: NewVersion, path: Path) -> Published:
        """Copy a file or a folder into a run of its own."""
        sources = content.walk(path)
        described = describe(want, path)
        top = sources[0].path.partition("/")[0]
        native = any(one.path == f"{top}/{mlmodel.NAME}" for one in sources)
        experiment = self._experiment(want.name)
        here = self.artifacts.local(experiment.artifact_location)
        if here is None:
            _check_addresses(sources, self.connection.where)
        with self.connection.asking() as client, incoming(here or self.connection.state, self.forget) as folder:
            manifest = content.copy(sources, folder / MODEL)
            same = self._same(want, manifest)
            if same is not None:
                return Published(same, new=False)
            record = _write_record(folder, described, Record(manifest, MODEL))
            if not native and top != mlmodel.NAME:
                write_mlmodel(folder / MODEL / mlmodel.NAME, described, top)
            run = client.create_run(
                experiment.experiment_id,
                run_name=f"{want.name} {manifest.digest.removeprefix('sha256:')[:12]}",
                tags={RUN_TAG: want.name} | ({"mlflow.source.git.commit": want.git_commit} if want.git_commit else {}),
            ).info
            names_run(folder, run.run_id)
            try:
                self._place(folder, run, here)
                _log_metrics(client, run.run_id, want.metrics)
                source = join(run.artifact_uri, f"{MODEL}/{top}" if native else MODEL)
                done = self._create(described, _Row(manifest, source, run.run_id, record))
            except BaseException:
                self.forget(run.run_id)
                raise
            if done.new:
                client.set_terminated(run.run_id)
            else:
                self.forget(run.run_id)
            return done

    def _from_run(self, want: NewVersion) -> Published:
        """Take a run's artifact where it is; only the record is added to the run."""
        with self.connection.asking() as client, incoming(self.connection.state, self.forget) as folder:
            run = run_of(self.connection, want)
            part = part_of(self.artifacts, run, want.artifact)
            run_id, uri = run.info.run_id, run.info.artifact_uri
            address = self.artifacts.settle(part.root) if part.model_id else join(uri, part.root)
            files = self.artifacts.get(address, folder / "download")
            manifest = content.hashed(content.walk(files, MODEL if part.model_id else part.root.rpartition("/")[2]))
            same = self._same(want, manifest)
            if same is not None:
                return Published(same, new=False)
            described = describe(want, files)
            if part.model_id:
                kept = Record(manifest, part.root, within=MODEL)
            else:
                kept = Record(manifest, part.root.rpartition("/")[0])
            record = _write_record(folder, described, kept)
            self.artifacts.put(folder / record, uri, record)
            _log_metrics(client, run_id, want.metrics)
            source = part.root if part.model_id else address
            return self._create(described, _Row(manifest, source, run_id, record, part.model_id))

    def _place(self, folder: Path, run: Any, here: Path | None) -> None:
        """Bring what is in *folder* among the run's artifacts: by renaming where they are on this machine."""
        final = self.artifacts.local(run.artifact_uri) if here is not None else None
        if final is not None:
            final.mkdir(parents=True, exist_ok=True)
        for part in (MODEL, "stageway"):
            if final is not None:
                (folder / part).rename(final / part)
            else:
                self.artifacts.put(folder / part, run.artifact_uri, part)

    def _same(self, want: NewVersion, manifest: Manifest, below: int | None = None) -> str | None:
        """Return the oldest version (below number *below*) that has the bytes of *manifest*."""
        if want.again:
            return None
        with self.connection.asking() as client:
            found = client.search_model_versions(f"name='{want.name}' and tag.`{DIGEST}` = '{manifest.digest}'")
        numbers = sorted(int(one.version) for one in found)
        return str(numbers[0]) if numbers and (below is None or numbers[0] < below) else None

    def _create(self, described: Described, row: _Row) -> Published:
        """Create the version with all its tags at once, unless another process just did with the same bytes."""
        want = described.want
        with self.connection.asking() as client, self.connection.locked("registry"):
            self._create_name(want.name)
            same = self._same(want, row.manifest)
            if same is not None:
                return Published(same, new=False)
            made = client.create_model_version(
                want.name,
                source=row.source,
                run_id=row.run_id,
                tags=tags_of(want, row.manifest, row.record, len(described.samples)),
                description=want.description or None,
                model_id=row.model_id,
            )
            # The lock holds on this machine only: of two machines, the later version gives way.
            same = self._same(want, row.manifest, below=int(made.version))
            if same is not None:
                client.delete_model_version(want.name, str(made.version))
                return Published(same, new=False)
        return Published(str(made.version), new=True)

    def _create_name(self, name: str) -> None:
        try:
            with self.connection.asking() as client:
                client.get_registered_model(name)
        except MissingError:
            try:
                with self.connection.asking() as client:
                    client.create_registered_model(name)
            except StagewayError:  # another machine was faster, or this one says what is wrong:
                with self.connection.asking() as client:
                    client.get_registered_model(name)

    def _experiment(self, name: str) -> Any:
        """Return the experiment that holds the runs of registrations of *name*."""
        title = EXPERIMENT.format(name=name)
        wanted = (self.connection.state / EMBEDDED / name).as_uri() if self.connection.embedded else None
        with self.connection.asking() as client, self.connection.locked("registry"):
            found = client.get_experiment_by_name(title)
            if found is not None and wanted is not None and found.artifact_location != wanted:
                # The workspace was moved, and MLflow never changes where an experiment keeps its files.
                title = f"{title} in {self.connection.state}"
                found = client.get_experiment_by_name(title)
            if found is None:
                client.create_experiment(title, artifact_location=wanted)
                found = client.get_experiment_by_name(title)
            elif found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return found

    def forget(self, run_id: str) -> None:
        """Delete a run that we made, with its files, unless a version came of it or the registry cannot be asked."""
        try:
            with self.connection.asking() as client:
                if not re.fullmatch(r"[0-9a-f]{32}", run_id) or client.search_model_versions(f"run_id='{run_id}'"):
                    return
                run = client.get_run(run_id)
                if RUN_TAG not in run.data.tags:
                    return
                client.delete_run(run_id)
        except StagewayError:
            return
        here = self.artifacts.local(run.info.artifact_uri)
        if here is not None:
            shutil.rmtree(here, ignore_errors=True)


def _write_record(folder: Path, described: Described, record: Record) -> str:
    """Write record and samples below *folder*, as they will be in the run, and return where they are there."""
    name = f"stageway/{secrets.token_hex(4)}"
    (folder / name).mkdir(parents=True)
    samples = content.copy(described.samples, folder / name / "samples") if described.samples else None
    whole = replace(record, contract=described.contract, samples=samples)
    (folder / name / "manifest.json").write_text(whole.to_json(), encoding="utf-8")
    return name


def _check_addresses(sources: Sequence[Source], where: str) -> None:
    for one in sources:
        if _NOT_IN_ADDRESSES & set(one.path):
            raise ConfigError(f"file {one.path!r}: cannot be stored at {where}; rename it without # ? % and \\")


def _log_metrics(client: Any, run_id: str, metrics: dict[str, float]) -> None:
    from mlflow.entities import Metric

    if metrics:
        now = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
