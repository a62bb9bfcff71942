"""Read versions: what their row, their run and their record say, and their files."""

from __future__ import annotations

import math
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from stageway.errors import ConfigError, RegistryError
from stageway.registries import content, mlmodel
from stageway.registries.content import Manifest, Source
from stageway.registries.mlflow.artifacts import Artifacts, join
from stageway.registries.mlflow.connection import Connection, MissingError
from stageway.registries.mlflow.record import Record, adopted, read_tags
from stageway.release import Model, ModelVersion


class Reader:
    """Turns MLflow's rows into facts and files; *identity* names the registry in them."""

    def __init__(self, identity: str, connection: Connection, artifacts: Artifacts) -> None:
        self.identity = identity
        self.connection = connection
        self.artifacts = artifacts

    def version(self, found: Any) -> ModelVersion:
        return ModelVersion(
            registry=self.identity, name=found.name, version=str(found.version), created=int(found.creation_timestamp)
        )

    def listed(self, found: Any) -> Model:
        """Return what the row alone says."""
        tags = read_tags(found.tags)
        return Model(
            id=self.version(found),
            digest=tags.digest,
            size=tags.size,
            framework=tags.framework,
            framework_version=tags.framework_version,
            tags=tags.rest,
            properties=tags.properties,
            description=found.description or "",
            git_commit=tags.git_commit,
            git_dirty=tags.git_dirty,
            run_id=found.run_id or None,
            has_samples=tags.samples > 0,
        )

    def model(self, found: Any) -> Model:
        """Return what row, run and record say; for a version of another tool, what its ``MLmodel`` says."""
        listed = self.listed(found)
        record = self._record(found)
        if record is not None:
            contract = record.contract
            more: dict[str, Any] = {"files": record.manifest.paths}
        else:
            said = self._mlmodel(found)
            contract = said.signature
            more = (
                {} if listed.framework else {"framework": said.framework, "framework_version": said.framework_version}
            )
        more["signature"] = contract.to_json() if contract is not None else None
        return listed.model_copy(update={**more, "metrics": self._metrics(found)})

    def adopt(self, found: Any) -> Model:
        """Take the digest of a version that another tool made, and write it down where that is allowed."""
        with TemporaryDirectory(prefix="stageway-") as scratch:
            manifest = content.hashed(self._foreign(found, Path(scratch)))
        try:
            with self.connection.asking() as client:
                for key, value in adopted(manifest).items():
                    client.set_model_version_tag(found.name, str(found.version), key, value)
        except RegistryError:
            pass  # who may only read takes the digest each time
        return self.model(found).model_copy(
            update={"digest": manifest.digest, "size": manifest.size, "files": manifest.paths}
        )

    def fetch(self, found: Any, model: Model, into: Path) -> None:
        """Put the version's files into the new folder *into*, each verified."""
        record = self._record(found)
        with _staged(into) as staging, self.connection.asking():
            if record is not None:
                manifest = record.manifest
                root = self._root(found, record)
                self._collect(manifest, root, record.within, staging, f"model {model.label}")
            else:
                manifest = content.copy(self._foreign(found, staging / "download"), staging / "files")
            if manifest.digest != model.digest and model.digest:
                raise RegistryError(
                    f"model {model.label}: its files are not those of {model.digest} any more; register them again"
                )

    def samples(self, found: Any, label: str, into: Path) -> bool:
        """Put the version's samples into the new folder *into*; say whether it has any."""
        record = self._record(found)
        if record is None or record.samples is None:
            return False
        with _staged(into) as staging, self.connection.asking() as client:
            run = client.get_run(found.run_id)
            root = join(run.info.artifact_uri, f"{read_tags(found.tags).record}/samples")
            self._collect(record.samples, root, "", staging, f"samples of {label}")
        return True

    def _metrics(self, found: Any) -> dict[str, float]:
        """Return the metrics of a version's run; none when it has no run, or the run is gone."""
        if not found.run_id:
            return {}
        try:
            with self.connection.asking() as client:
                metrics = client.get_run(found.run_id).data.metrics
        except MissingError:
            return {}
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _record(self, found: Any) -> Record | None:
        """Return what was written down at registration; ``None`` for a version that another tool made."""
        folder = read_tags(found.tags).record
        if folder is None or not found.run_id:
            return None
        label = f"model {found.name}:{found.version}"
        content.check_path(folder, label)
        try:
            with self.connection.asking() as client, TemporaryDirectory(prefix="stageway-") as scratch:
                run = client.get_run(found.run_id)
                text = self.artifacts.text(join(run.info.artifact_uri, f"{folder}/manifest.json"), Path(scratch))
        except MissingError as error:
            raise MissingError(f"{label}: its record is gone from the registry; register it again") from error
        return Record.from_json(text, label)

    def _root(self, found: Any, record: Record) -> str:
        """Return the storage address of the folder (or the model) that a record's paths start from."""
        if record.within:
            return self.artifacts.settle(record.root)
        with self.connection.asking() as client:
            return join(client.get_run(found.run_id).info.artifact_uri, record.root)

    def _collect(self, manifest: Manifest, root: str, within: str, staging: Path, label: str) -> None:
        """Bring the files of *manifest* from *root* into ``staging/files`` and verify each."""
        paths = {one.path: one.path.removeprefix(f"{within}/") if within else one.path for one in manifest.files}
        here = self.artifacts.local(root)
        if here is None:
            here = staging / "download"
            for top in sorted({path.partition("/")[0] for path in paths.values()}):
                self.artifacts.get(join(root, top), here)
        sources = [Source(name, here.joinpath(*PurePosixPath(path).parts)) for name, path in paths.items()]
        for one in sources:
            if not one.real.is_file():
                raise RegistryError(
                    f"{label}: file {one.path!r} is missing in the registry; register the version again"
                )
        content.verify(content.copy(sources, staging / "files"), manifest, label)

    def _foreign(self, found: Any, scratch: Path) -> list[Source]:
        """List the files of a version that another tool made, as a folder (or a file) called ``model``."""
        path = self.artifacts.get(self._address(found), scratch)
        return content.walk(path, "model" if path.is_dir() else None)

    def _mlmodel(self, found: Any) -> mlmodel.MLmodel:
        with TemporaryDirectory(prefix="stageway-") as scratch:
            try:
                text = self.artifacts.text(join(self._address(found), mlmodel.NAME), Path(scratch))
                return mlmodel.read(text, f"model {found.name}:{found.version}: {mlmodel.NAME}")
            except (RegistryError, ConfigError):
                return mlmodel.MLmodel()  # not in MLflow's format: nothing is known of it

    def _address(self, found: Any) -> str:
        with self.connection.asking() as client:
            return self.artifacts.settle(str(client.get_model_version_download_uri(found.name, str(found.version))))


@contextmanager
def _staged(into: Path) -> Iterator[Path]:
    """Yield a folder whose ``files`` become *into* at the end; a failure leaves nothing."""
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ConfigError(f"{into}: is there already; name a new folder")
    staging = into.with_name(f".{into.name}-{secrets.token_hex(4)}")
    try:
        staging.mkdir(parents=True)
        yield staging
        (staging / "files").rename(into)
    except OSError as error:
        raise ConfigError(f"{into}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
