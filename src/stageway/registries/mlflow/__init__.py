"""The MLflow registry: the embedded one of a workspace (SQLite and a folder), or a server.

Beside the versions that Stageway registered it reads those that any other tool did: their digest is taken from the
files when ``get`` first meets them (and written down as a tag), framework and signature come from their ``MLmodel``,
metrics from their run. A version of Stageway has one run in the experiment ``stageway/NAME``; the run's artifacts are::

    model/           what was registered: one file or one folder, and an MLmodel beside it for MLflow's pages
    stageway/…/      manifest.json and samples/
"""

from __future__ import annotations

import math
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, RegistryError
from stageway.registries import content, mlmodel
from stageway.registries.base import FRAMEWORKS, NewVersion, Registered
from stageway.registries.content import Manifest, Source
from stageway.registries.mlflow.artifacts import Artifacts, join
from stageway.registries.mlflow.connection import Connection, MissingError
from stageway.registries.mlflow.publish import Publisher, check_metric
from stageway.registries.mlflow.record import Record, Tags, adopted, is_own, read_tags
from stageway.release import MODEL_NAME, Model, ModelVersion, Reference, check_model_name

_PAGE = 200
_KEY = re.compile(r"^\w[\w.\- :/]{0,199}$")
_LONGEST_VALUE = 5000


class MlflowRegistry:
    """A model registry kept by MLflow."""

    def __init__(self, workspace: Workspace) -> None:
        self.identity = workspace.registry_identity
        self._connection = Connection(workspace)
        self._artifacts = Artifacts(self._connection)
        self._publisher = Publisher(self._connection, self._artifacts)

    def register(self, want: NewVersion) -> Registered:
        """Register, or say which version has the same bytes (unless ``want.again``)."""
        _check(want)
        with self._connection.asking():
            done = self._publisher.publish(want)
            return Registered(model=self.get(f"{want.name}:{done.version}"), new=done.new)

    def get(self, reference: str) -> Model:
        """Return ``name:version``, ``name@alias`` or the newest of ``name``; ``RegistryError`` when there is none."""
        with self._connection.asking():
            found = self._version(Reference.parse(reference))
            model = self._model(found)
            return model if model.digest else self._adopt(found, model)

    def find(self, version: ModelVersion) -> Model | None:
        """Return the version with exactly this identity, or ``None`` when it is gone (or was created again).

        The digest of a version that another tool made is empty here until somebody ``get`` it.
        """
        if version.registry != self.identity:
            return None
        try:
            with self._connection.asking() as client:
                found = client.get_model_version(version.name, version.version)
                return self._model(found) if found.creation_timestamp == version.created else None
        except MissingError:
            return None

    def names(self) -> Sequence[str]:
        """Return the registered models' names, sorted; without those that cannot be deployed."""
        with self._connection.asking() as client:
            found = _all(lambda token: client.search_registered_models(max_results=_PAGE, page_token=token))
        return sorted(one.name for one in found if MODEL_NAME.match(one.name) and ".." not in one.name)

    def versions(
        self, name: str, *, since: int | None = None, tags: Mapping[str, str] | None = None
    ) -> Sequence[Model]:
        """Return versions of *name*, newest first: created at or after *since* (ms), with all of *tags*.

        A list is quick, so files, metrics and signature are left to ``get``.
        """
        check_model_name(name)
        wanted = [f"name='{name}'"]
        for key, value in (tags or {}).items():
            wanted.append(f"tag.`{_check_key(key)}` = '{_quoted(value)}'")
        found: list[Model] = []
        with self._connection.asking() as client:
            token = None
            while True:
                page = client.search_model_versions(
                    " and ".join(wanted),
                    max_results=_PAGE,
                    order_by=["creation_timestamp DESC", "version_number DESC"],
                    page_token=token,
                )
                found += [
                    self._listed(one, read_tags(one.tags))
                    for one in page
                    if since is None or one.creation_timestamp >= since
                ]
                token = page.token
                if not token or (since is not None and page[-1].creation_timestamp < since):
                    return found

    def fetch(self, model: Model, into: Path) -> Path:
        """Put the version's files into the new folder *into* and verify its digest, file by file. Returns *into*."""
        with self._connection.asking() as client:
            found = client.get_model_version(model.id.name, model.id.version)
            if found.creation_timestamp != model.id.created:
                raise MissingError(f"model {model.label}: was deleted and registered again; start anew with it")
            record = self._record(client, found)
            with _Fresh(into) as staging:
                if record is not None:
                    manifest = record.manifest
                    self._collect(manifest, self._root(client, found, record), record.within, staging, model.label)
                else:
                    manifest = content.copy(self._foreign(client, found, staging / "download"), staging / "files")
                if model.digest and manifest.digest != model.digest:
                    raise RegistryError(
                        f"model {model.label}: its files are not those of {model.digest} any more; register it again"
                    )
                _into_place(staging / "files", into)
        return into

    def samples(self, model: Model, into: Path) -> Path | None:
        """Put the version's samples into *into*, or return ``None`` when it has none."""
        with self._connection.asking() as client:
            found = client.get_model_version(model.id.name, model.id.version)
            record = self._record(client, found)
            if record is None or record.samples is None:
                return None
            run = client.get_run(found.run_id)
            root = join(run.info.artifact_uri, f"{read_tags(found.tags).record}/samples")
            with _Fresh(into) as staging:
                self._collect(record.samples, root, "", staging, f"samples of {model.label}")
                _into_place(staging / "files", into)
        return into

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let *alias* name *version*, whatever it named before."""
        check_model_name(name)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias) or re.fullmatch(r"latest|[vV]\d+", alias):
            raise ConfigError(f"alias {alias!r}: use letters, digits, '_' and '-', and neither 'latest' nor 'v1'")
        with self._connection.asking() as client:
            self._version(Reference(name=name, version=version))
            client.set_registered_model_alias(name, alias, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove *alias*; one that does not exist is no error."""
        check_model_name(name)
        with self._connection.asking() as client:
            client.delete_registered_model_alias(name, alias)

    def aliases(self, name: str) -> Mapping[str, str]:
        """Return alias → version; a model that does not exist has none."""
        check_model_name(name)
        try:
            with self._connection.asking() as client:
                return {key: str(value) for key, value in client.get_registered_model(name).aliases.items()}
        except MissingError:
            return {}

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set *tags* on exactly this version; what was recorded at registration cannot be changed."""
        _check_tags(tags, "tag")
        with self._connection.asking() as client:
            found = client.get_model_version(version.name, version.version)
            if found.creation_timestamp != version.created:
                raise MissingError(f"model {version.label}: was deleted and registered again; its tags are another's")
            for key, value in tags.items():
                client.set_model_version_tag(version.name, version.version, key, value)

    def delete(self, reference: str) -> ModelVersion:
        """Delete one version, with the files that were copied for it. Raises ``RegistryError`` when there is none."""
        parsed = Reference.parse(reference)
        if parsed.version is None and parsed.alias is None:
            raise ConfigError(f"model {reference!r}: say which version is to be deleted, such as {reference}:1")
        with self._connection.asking() as client:
            found = self._version(parsed)
            client.delete_model_version(found.name, str(found.version))
            if found.run_id and read_tags(found.tags).record:
                self._publisher.forget(found.run_id)
            return self._identity(found)

    def ping(self) -> None:
        """Raise ``TryAgainError`` when the registry is away."""
        with self._connection.asking() as client:
            client.search_registered_models(max_results=1)

    # One version

    def _version(self, reference: Reference) -> Any:
        """Return MLflow's row of what *reference* names."""
        name = reference.name
        with self._connection.asking() as client:
            try:
                if reference.version is not None:
                    return client.get_model_version(name, reference.version)
                if reference.alias is not None:
                    return client.get_model_version_by_alias(name, reference.alias)
            except Exception as error:
                if getattr(error, "error_code", None) not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            else:
                newest = client.search_model_versions(f"name='{name}'", max_results=1, order_by=["version_number DESC"])
                if newest:
                    return newest[0]
            raise MissingError(f"model {str(reference)!r}: {self._connection.where} has {self._known(client, name)}")

    def _known(self, client: Any, name: str) -> str:
        found = client.search_model_versions(f"name='{name}'", max_results=20, order_by=["version_number DESC"])
        if found:
            aliases = [f"@{alias}" for alias in sorted(self.aliases(name))]
            return "only " + ", ".join([*(f":{one.version}" for one in found), *aliases])
        return f"no version of it; it has: {', '.join(self.names()) or 'no model at all'}"

    def _identity(self, found: Any) -> ModelVersion:
        return ModelVersion(
            registry=self.identity,
            name=found.name,
            version=str(found.version),
            created=int(found.creation_timestamp),
        )

    def _listed(self, found: Any, tags: Tags) -> Model:
        """Return what the row alone says."""
        return Model(
            id=self._identity(found),
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

    def _model(self, found: Any) -> Model:
        """Return what the row, the run and the record say."""
        with self._connection.asking() as client:
            listed = self._listed(found, read_tags(found.tags))
            metrics = _metrics(client, found)
            record = self._record(client, found)
            if record is None:
                said = self._mlmodel(client, found)
                contract = said.signature if said is not None else None
                more: dict[str, Any] = (
                    {}
                    if said is None
                    else {
                        "framework": listed.framework or said.framework,
                        "framework_version": listed.framework_version or said.framework_version,
                    }
                )
            else:
                contract = record.contract
                more = {"files": record.manifest.paths}
            return listed.model_copy(
                update={**more, "metrics": metrics, "signature": contract.to_json() if contract is not None else None}
            )

    def _record(self, client: Any, found: Any) -> Record | None:
        """Return what was written down at registration; ``None`` for a version that another tool made."""
        folder = read_tags(found.tags).record
        if folder is None or not found.run_id:
            return None
        label = f"model {found.name}:{found.version}"
        content.check_path(folder, label)
        try:
            run = client.get_run(found.run_id)
            with TemporaryDirectory(prefix="stageway-") as scratch:
                text = self._artifacts.text(join(run.info.artifact_uri, f"{folder}/manifest.json"), Path(scratch))
        except MissingError as error:
            raise MissingError(f"{label}: its record is gone from the registry; register it again") from error
        return Record.from_json(text, label)

    def _root(self, client: Any, found: Any, record: Record) -> str:
        """Return the storage address of the folder (or the model) that a record's paths start from."""
        if record.within:
            return self._artifacts.settle(record.root)
        return join(client.get_run(found.run_id).info.artifact_uri, record.root)

    def _collect(self, manifest: Manifest, root: str, within: str, staging: Path, label: str) -> None:
        """Bring the files of *manifest* from *root* into ``staging/files`` and verify each."""
        here = self._artifacts.local(root)
        if here is None:
            here = staging / "download"
            tops = {one.path.removeprefix(f"{within}/" if within else "").partition("/")[0] for one in manifest.files}
            for top in sorted(tops):
                self._artifacts.get(join(root, top), here)
        sources: list[Source] = []
        for one in manifest.files:
            path = one.path.removeprefix(f"{within}/") if within else one.path
            real = here.joinpath(*PurePosixPath(path).parts)
            if not real.is_file() or real.is_symlink():
                raise RegistryError(
                    f"{label}: file {one.path!r} is missing in the registry; register the version again"
                )
            sources.append(Source(one.path, real))
        content.verify(content.copy(sources, staging / "files"), manifest, label)

    # Versions of other tools

    def _foreign(self, client: Any, found: Any, scratch: Path) -> list[Source]:
        """List the files of a version that another tool made, as a folder (or file) called ``model``."""
        uri = self._artifacts.settle(str(client.get_model_version_download_uri(found.name, str(found.version))))
        path = self._artifacts.get(uri, scratch)
        return content.walk(path, "model" if path.is_dir() else None)

    def _mlmodel(self, client: Any, found: Any) -> mlmodel.MLmodel | None:
        uri = self._artifacts.settle(str(client.get_model_version_download_uri(found.name, str(found.version))))
        with TemporaryDirectory(prefix="stageway-") as scratch:
            try:
                text = self._artifacts.text(join(uri, mlmodel.NAME), Path(scratch))
                return mlmodel.read(text, f"model {found.name}:{found.version}: {mlmodel.NAME}")
            except (RegistryError, ConfigError):
                return None  # not a model in MLflow's format: nothing is known of it

    def _adopt(self, found: Any, model: Model) -> Model:
        """Take the digest of a version that another tool made, and write it down where that is allowed."""
        with self._connection.asking() as client, TemporaryDirectory(prefix="stageway-") as scratch:
            manifest = content.hashed(self._foreign(client, found, Path(scratch)))
            for key, value in adopted(manifest).items():
                try:
                    with self._connection.asking():
                        client.set_model_version_tag(found.name, str(found.version), key, value)
                except RegistryError:
                    break  # who may only read takes the digest each time
        return model.model_copy(update={"digest": manifest.digest, "size": manifest.size, "files": manifest.paths})


def _metrics(client: Any, found: Any) -> dict[str, float]:
    """Return the metrics of a version's run; none when it has no run, or the run is gone."""
    if not found.run_id:
        return {}
    try:
        run = client.get_run(found.run_id)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {name: value for name, value in run.data.metrics.items() if math.isfinite(value)}


def _all(page_of: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = page_of(token)
        found += page
        token = page.token
        if not token:
            return found


class _Fresh:
    """A folder beside *into* that is gone afterwards; refuses an *into* that holds something."""

    def __init__(self, into: Path) -> None:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise ConfigError(f"{into}: is there already; name a new folder")
        self.folder = into.with_name(f".{into.name}-{secrets.token_hex(4)}")

    def __enter__(self) -> Path:
        self.folder.mkdir(parents=True)
        return self.folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _into_place(files: Path, into: Path) -> None:
    try:
        files.rename(into)
    except OSError as error:
        raise ConfigError(f"{into}: cannot be written: {error.strerror}") from error


# What callers may ask for


def _check(want: NewVersion) -> None:
    """Raise ``ConfigError`` for what MLflow would refuse half way, or what no registry should hold."""
    check_model_name(want.name)
    given = [want.path is not None, want.run_id is not None, want.experiment is not None]
    if sum(given) != 1:
        raise ConfigError(f"model {want.name!r}: name one source: a path, a run, or an experiment with best-by")
    if (want.experiment is None) != (want.best_by is None):
        raise ConfigError("experiment and best-by belong together, such as --experiment ridge --best-by=-rmse")
    if want.artifact is not None and want.path is not None:
        raise ConfigError(f"artifact {want.artifact!r}: names a part of a run; a path has none")
    if want.framework is not None and want.framework not in FRAMEWORKS:
        raise ConfigError(f"framework {want.framework!r}: is not known; use one of {', '.join(FRAMEWORKS)}")
    if want.framework_version is not None and want.framework is None:
        raise ConfigError(f"framework-version {want.framework_version!r}: name the framework too")
    for name, value in want.metrics.items():
        check_metric(name)
        if not math.isfinite(value):
            raise ConfigError(f"metric {name}: {value} is not a finite number")
    if want.run_id is not None and not re.fullmatch(r"[\w-]{1,64}", want.run_id):
        raise ConfigError(f"run {want.run_id!r}: is not an MLflow run id")
    _check_tags(want.tags, "tag")
    _check_tags(want.properties, "property")
    if any(content.has_control(line) for line in want.description.splitlines()) or len(want.description) > 5000:
        raise ConfigError("description: has control characters, or more than 5000 characters")


def _check_tags(tags: Mapping[str, str], kind: str) -> None:
    for key, value in tags.items():
        _check_key(key, kind)
        if kind == "tag" and (is_own(key) or key.startswith("mlflow.")):
            raise ConfigError(f"tag {key!r}: is written by the registry itself; choose another name")
        if content.has_control(value) or len(value) > _LONGEST_VALUE:
            raise ConfigError(f"{kind} {key}: has control characters, or more than {_LONGEST_VALUE} characters")


def _check_key(key: str, kind: str = "tag") -> str:
    if not _KEY.match(key) or key.endswith(("\n", "/")) or ".." in key or "//" in key:
        raise ConfigError(
            f"{kind} {key!r}: use letters, digits, '_', '.', '-', ':', '/' and spaces (at most 200, a letter first)"
        )
    return key


def _quoted(value: str) -> str:
    if "'" in value or content.has_control(value):
        raise ConfigError(f"tag value {value!r}: cannot be searched for; leave out quotes and control characters")
    return value
