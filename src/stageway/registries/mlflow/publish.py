"""Register a version: files first, its row last.

Files are copied (and hashed on the way) into a folder ``.incoming-…`` beside their final place, so a killed process
leaves no version; what it left is swept up by the next registration. The lock of that folder says whether its owner
lives, its file ``run`` which run would be left without a version.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageway import samples
from stageway.contract import Contract
from stageway.errors import ConfigError, RegistryError, StagewayError
from stageway.registries import content, mlmodel
from stageway.registries.base import NewVersion
from stageway.registries.content import Manifest, Source
from stageway.registries.mlflow.artifacts import EMBEDDED, Artifacts, join, logged_model, logged_models
from stageway.registries.mlflow.connection import Connection, MissingError
from stageway.registries.mlflow.record import DIGEST, Record, tags_of

EXPERIMENT = "stageway/{name}"
RUN_TAG = "stageway.registered"
_MODEL = "model"
_INCOMING = ".incoming-"
_METRIC = re.compile(r"^\w[\w.\- :/]*$")


@dataclass(frozen=True)
class Published:
    """The number of the version, and whether it is new."""

    version: str
    new: bool


@dataclass(frozen=True)
class _Extras:
    """What is stored beside the files of a version."""

    want: NewVersion
    contract: Contract | None
    samples: tuple[Source, ...]


class Publisher:
    """Registers versions at one registry."""

    def __init__(self, connection: Connection, artifacts: Artifacts) -> None:
        self.connection = connection
        self.artifacts = artifacts

    def publish(self, want: NewVersion) -> Published:
        """Register *want*, or say which version has the same bytes."""
        if want.path is not None:
            return self._from_path(want, want.path)
        return self._from_run(want, self._run(want))

    # A file or a folder

    def _from_path(self, want: NewVersion, path: Path) -> Published:
        sources = content.walk(path)
        extras = _describe(want, path)
        experiment = self._experiment(want.name)
        here = self.artifacts.local(experiment.artifact_location)
        if here is None and (odd := next((one.path for one in sources if set(one.path) & set("#?%\\")), None)):
            raise ConfigError(
                f"{path}: file {odd!r} cannot be stored at {self.connection.where}; leave out # ? % and \\"
            )
        with self.connection.asking() as client, self._incoming(here or self.connection.state) as incoming:
            manifest = content.copy(sources, incoming / _MODEL)
            if (same := self._same(want, manifest)) is not None:
                return Published(same, new=False)
            record = self._write(incoming, extras, Record(manifest, _MODEL, contract=extras.contract))
            native = f"{(name := sources[0].path.partition('/')[0])}/{mlmodel.NAME}" in manifest.paths
            if not native and name != mlmodel.NAME:
                _write_mlmodel(incoming / _MODEL / mlmodel.NAME, extras, name)
            run = client.create_run(
                experiment.experiment_id,
                run_name=f"{want.name} {manifest.digest.removeprefix('sha256:')[:12]}",
                tags={RUN_TAG: want.name} | ({"mlflow.source.git.commit": want.git_commit} if want.git_commit else {}),
            )
            (incoming / "run").write_text(run.info.run_id, encoding="utf-8")
            try:
                self._place(incoming, run.info, here)
                _log_metrics(client, run.info.run_id, want.metrics)
                source = join(run.info.artifact_uri, f"{_MODEL}/{name}" if native else _MODEL)
                done = self._create(extras, manifest, record, source, run.info.run_id)
            except BaseException:
                self._drop_unused(run.info.run_id)
                raise
            if not done.new:
                self._drop(run.info.run_id)
            else:
                client.set_terminated(run.info.run_id)
            return done

    def _write(self, incoming: Path, extras: _Extras, record: Record) -> str:
        """Write the record and the samples below *incoming* and return the record's folder in the run."""
        folder = f"stageway/{secrets.token_hex(4)}"
        kept = content.copy(extras.samples, incoming / folder / "samples") if extras.samples else None
        whole = Record(record.manifest, record.root, record.within, record.contract, kept)
        (incoming / folder).mkdir(parents=True, exist_ok=True)
        (incoming / folder / "manifest.json").write_text(whole.to_json(), encoding="utf-8")
        return folder

    def _place(self, incoming: Path, info: Any, here: Path | None) -> None:
        """Bring what is in *incoming* among the run's artifacts: by renaming where they are on this machine."""
        final = self.artifacts.local(info.artifact_uri) if here is not None else None
        if final is not None:
            final.mkdir(parents=True, exist_ok=True)
        with self.connection.asking() as client, self.connection.transfers():
            for part in (_MODEL, "stageway"):
                if final is not None:
                    (incoming / part).rename(final / part)
                else:
                    client.log_artifacts(info.run_id, str(incoming / part), part)

    # A run's artifact

    def _run(self, want: NewVersion) -> Any:
        """Return the run that *want* names, or the best of its experiment."""
        with self.connection.asking() as client:
            if want.run_id is not None:
                return client.get_run(want.run_id)
            return self._best(client, want.experiment or "", want.best_by or "")

    def _best(self, client: Any, name: str, best_by: str) -> Any:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            known = ", ".join(sorted(one.name for one in client.search_experiments()))
            raise RegistryError(f"experiment {name!r}: {self.connection.where} has none of this name; it has: {known}")
        metric = best_by.lstrip("+-")
        check_metric(metric)
        direction = "ASC" if best_by.startswith("-") else "DESC"
        runs = client.search_runs(
            [experiment.experiment_id],
            filter_string="attributes.status = 'FINISHED'",
            order_by=[f"metrics.`{metric}` {direction}"],
            max_results=1,
        )
        if not runs or not _finite(runs[0].data.metrics.get(metric)):
            raise RegistryError(f"experiment {name!r}: no finished run has a number for metric {metric!r}")
        return runs[0]

    def _from_run(self, want: NewVersion, run: Any) -> Published:
        with self.connection.asking() as client, self._incoming(self.connection.state) as incoming:
            root, within, model_id = self._artifact(client, run, want.artifact)
            top = within or root.rpartition("/")[2]
            address = self.artifacts.settle(root) if within else join(run.info.artifact_uri, root)
            folder = self.artifacts.get(address, incoming / "download")
            manifest = content.hashed(content.walk(folder, top))
            if (same := self._same(want, manifest)) is not None:
                return Published(same, new=False)
            extras = _describe(want, folder)
            base = root if within else root.rpartition("/")[0]
            record = self._write(incoming, extras, Record(manifest, base, within, extras.contract))
            client.log_artifacts(run.info.run_id, str(incoming / record), record)
            _log_metrics(client, run.info.run_id, want.metrics)
            source = root if within else address
            return self._create(extras, manifest, record, source, run.info.run_id, model_id)

    def _artifact(self, client: Any, run: Any, artifact: str | None) -> tuple[str, str, str | None]:
        """Return the root of the run's model, the name its files get when that is elsewhere, and its MLflow id."""
        models = logged_models(client, run)
        names = [one.path for one in client.list_artifacts(run.info.run_id) if one.path != "stageway"]
        if artifact is None:
            if len(models) == 1:
                return f"models:/{models[0].model_id}", _MODEL, models[0].model_id
            if _MODEL in names and not models:
                return _MODEL, "", None
            choice = ", ".join(sorted({*names, *(one.name for one in models)})) or "nothing"
            raise RegistryError(f"run {run.info.run_id}: which artifact is the model? name one; it has: {choice}")
        artifact = content.check_path(artifact.strip("/"), f"run {run.info.run_id}: artifact")
        parent = artifact.rpartition("/")[0]
        if artifact in [one.path for one in client.list_artifacts(run.info.run_id, parent or None)]:
            return artifact, "", None
        if (model := logged_model(client, run, artifact)) is not None:
            return f"models:/{model.model_id}", _MODEL, model.model_id
        choice = ", ".join(sorted({*names, *(one.name for one in models)})) or "nothing"
        raise RegistryError(f"run {run.info.run_id}: has no artifact {artifact!r}; it has: {choice}")

    # The version's row

    def _same(self, want: NewVersion, manifest: Manifest, below: int | None = None) -> str | None:
        """Return the oldest version (below number *below*) that has the bytes of *manifest*."""
        if want.again:
            return None
        with self.connection.asking() as client:
            found = client.search_model_versions(f"name='{want.name}' and tag.`{DIGEST}` = '{manifest.digest}'")
        numbers = sorted(int(one.version) for one in found)
        return str(numbers[0]) if numbers and (below is None or numbers[0] < below) else None

    def _create(
        self, extras: _Extras, manifest: Manifest, record: str, source: str, run_id: str, model_id: str | None = None
    ) -> Published:
        """Create the version with all its tags at once, unless another process just did with the same bytes."""
        want = extras.want
        with self.connection.asking() as client, self.connection.locked("registry"):
            self._create_name(client, want.name)
            if (same := self._same(want, manifest)) is not None:
                return Published(same, new=False)
            made = client.create_model_version(
                want.name,
                source=source,
                run_id=run_id,
                tags=tags_of(want, manifest, record, len(extras.samples)),
                description=want.description or None,
                **({"model_id": model_id} if model_id else {}),
            )
            # The lock holds on this machine only: of two machines, the later version gives way.
            if (same := self._same(want, manifest, below=int(made.version))) is not None:
                client.delete_model_version(want.name, str(made.version))
                return Published(same, new=False)
        return Published(str(made.version), new=True)

    def _create_name(self, client: Any, name: str) -> None:
        try:
            with self.connection.asking():
                client.get_registered_model(name)
        except MissingError:
            try:
                client.create_registered_model(name)
            except Exception:  # noqa: BLE001 - another machine was faster, or the next line says what is wrong
                client.get_registered_model(name)

    def _experiment(self, name: str) -> Any:
        """Return the experiment that holds the runs of registrations of *name*."""
        title = EXPERIMENT.format(name=name)
        wanted = (self.connection.state / EMBEDDED / name).as_uri() if self.connection.embedded else None
        with self.connection.asking() as client, self.connection.locked("registry"):
            found = client.get_experiment_by_name(title)
            if found is not None and wanted is not None and found.artifact_location != wanted:
                # The workspace was moved: MLflow never changes where an experiment keeps its files.
                title = f"{title} {wanted}"
                found = client.get_experiment_by_name(title)
            if found is not None and found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            if found is None:
                client.create_experiment(title, artifact_location=wanted)
                found = client.get_experiment_by_name(title)
            return found

    # What may be left behind

    @contextmanager
    def _incoming(self, place: Path) -> Iterator[Path]:
        """Yield a new folder in *place* that is gone afterwards, here or at the next registration."""
        place.mkdir(parents=True, exist_ok=True)
        self._sweep(place)
        folder = place / f"{_INCOMING}{secrets.token_hex(6)}"
        folder.mkdir()
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self, place: Path) -> None:
        """Remove what killed processes left: their folders, and their runs that no version came of."""
        for folder in place.glob(f"{_INCOMING}*"):
            try:
                with (folder / "lock").open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if (folder / "run").is_file():
                        self._drop_unused((folder / "run").read_text(encoding="utf-8"))
                    shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue  # its owner lives
            except FileNotFoundError:
                if folder.exists() and time.time() - folder.stat().st_mtime > 60:  # killed before it had its lock
                    shutil.rmtree(folder, ignore_errors=True)

    def _drop_unused(self, run_id: str) -> None:
        try:
            with self.connection.asking() as client:
                if re.fullmatch(r"[0-9a-f]{32}", run_id) and not client.search_model_versions(f"run_id='{run_id}'"):
                    self._drop(run_id)
        except StagewayError:
            return  # what cannot be asked for is not dropped

    def _drop(self, run_id: str) -> None:
        """Delete a run of ours, and its files where they are on this machine; one that is gone is no error."""
        try:
            with self.connection.asking() as client:
                run = client.get_run(run_id)
                if RUN_TAG not in run.data.tags:
                    return
                client.delete_run(run_id)
        except StagewayError:
            return
        here = self.artifacts.local(run.info.artifact_uri)
        if here is not None:
            shutil.rmtree(here, ignore_errors=True)

    def forget(self, run_id: str) -> None:
        """Delete the files of a deleted version: its run, if we made it and no other version came of it."""
        self._drop_unused(run_id)


def check_metric(name: str) -> str:
    """Return *name*, or raise ``ConfigError`` when MLflow could not hold a metric of this name."""
    if not _METRIC.match(name) or ".." in name or "//" in name or name.endswith("/"):
        raise ConfigError(f"metric {name!r}: use letters, digits, '_', '.', '-', ':', '/' and spaces")
    return name


def _finite(value: float | None) -> bool:
    return value is not None and value == value and abs(value) != float("inf")


def _describe(want: NewVersion, path: Path) -> _Extras:
    """Complete *want* by what the files say of themselves; what the caller says comes first."""
    said = mlmodel.in_folder(path) if path.is_dir() else None
    found = samples.read(want.samples) if want.samples is not None else ()
    if want.samples is not None and not found:
        raise ConfigError(f"{want.samples}: holds no samples; put NAME.json and NAME{samples.EXPECTED} there")
    contract = Contract.from_json(want.signature) if want.signature is not None else None
    contract = contract or (said.signature if said else None) or samples.contract(found)
    framework = want.framework or (said.framework if said else None) or ("Onnx" if path.suffix == ".onnx" else None)
    version = want.framework_version
    if version is None and said is not None and framework == said.framework:
        version = said.framework_version
    files = [
        Source(name, want.samples / name)
        for one in found
        for name in (f"{one.name}.json", f"{one.name}{samples.EXPECTED}" if one.has_expected else None)
        if want.samples is not None and name is not None
    ]
    changed = want.model_copy(update={"framework": framework, "framework_version": version})
    return _Extras(changed, contract, tuple(files))


def _write_mlmodel(path: Path, extras: _Extras, name: str) -> None:
    """Write an ``MLmodel`` beside the user's files, so that MLflow's pages show the schema."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, ModelSignature

    signature = None
    if extras.contract is not None:
        try:
            signature = ModelSignature.from_dict(mlmodel.to_signature(extras.contract))
        except MlflowException:
            signature = None  # a schema that this MLflow cannot say is in the metadata all the same
    flavor = {"data": name, "framework": extras.want.framework, "framework_version": extras.want.framework_version}
    model = Model(
        flavors={"stageway": {key: value for key, value in flavor.items() if value is not None}},
        signature=signature,
        metadata={mlmodel.METADATA: extras.contract.to_json()} if extras.contract is not None else None,
    )
    model.save(str(path))


def _log_metrics(client: Any, run_id: str, metrics: dict[str, float]) -> None:
    from mlflow.entities import Metric

    if metrics:
        now = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
