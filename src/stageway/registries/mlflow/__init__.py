"""The MLflow registry: the embedded one of a workspace (SQLite and a folder), or a server.

Beside the versions that Stageway registered it reads those that any other tool did: their digest is taken from the
files when ``get`` first meets them (and written down as a tag), framework and signature come from their ``MLmodel``,
metrics from their run. A version of Stageway has one run in the experiment ``stageway/NAME``; the run's artifacts are::

    model/           what was registered: one file or one folder, and an MLmodel beside it for MLflow's pages
    stageway/…/      manifest.json and samples/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError
from stageway.registries.base import NewVersion, Registered
from stageway.registries.mlflow.artifacts import Artifacts
from stageway.registries.mlflow.checks import check, check_alias, check_key, check_tags, quoted
from stageway.registries.mlflow.connection import Connection, MissingError
from stageway.registries.mlflow.publish import Publisher
from stageway.registries.mlflow.reading import Reader
from stageway.registries.mlflow.record import read_tags
from stageway.release import MODEL_NAME, Model, ModelVersion, Reference, check_model_name

_PAGE = 200


class MlflowRegistry:
    """A model registry kept by MLflow."""

    def __init__(self, workspace: Workspace) -> None:
        self.identity = workspace.registry_identity
        self._connection = Connection(workspace)
        artifacts = Artifacts(self._connection)
        self._publisher = Publisher(self._connection, artifacts)
        self._reader = Reader(self.identity, self._connection, artifacts)

    def register(self, want: NewVersion) -> Registered:
        """Register, or say which version has the same bytes (unless ``want.again``)."""
        check(want)
        done = self._publisher.publish(want)
        return Registered(model=self.get(f"{want.name}:{done.version}"), new=done.new)

    def get(self, reference: str) -> Model:
        """Return ``name:version``, ``name@alias`` or the newest of ``name``; ``RegistryError`` when there is none."""
        found = self._find(Reference.parse(reference))
        model = self._reader.model(found)
        return model if model.digest else self._reader.adopt(found)

    def find(self, version: ModelVersion) -> Model | None:
        """Return the version with exactly this identity, or ``None`` when it is gone (or was created again).

        The digest of a version that another tool made is empty until somebody has ``get`` it.
        """
        try:
            return self._reader.model(self._exactly(version))
        except MissingError:
            return None

    def names(self) -> Sequence[str]:
        """Return the registered models' names, sorted; without those that cannot be deployed."""
        found: list[str] = []
        with self._connection.asking() as client:
            token: str | None = ""
            while token is not None:
                page = client.search_registered_models(max_results=_PAGE, page_token=token or None)
                found += [one.name for one in page]
                token = page.token or None
        return sorted(name for name in found if MODEL_NAME.match(name) and ".." not in name)

    def versions(
        self, name: str, *, since: int | None = None, tags: Mapping[str, str] | None = None
    ) -> Sequence[Model]:
        """Return versions of *name*, newest first: created at or after *since* (ms), with all of *tags*.

        A list is quick, so files, metrics and signature are left to ``get`` and ``find``; a model that does not exist
        has no versions.
        """
        wanted = [f"name='{check_model_name(name)}'"]
        wanted += [f"tag.`{check_key(key, 'tag')}` = {quoted(value)}" for key, value in (tags or {}).items()]
        found: list[Any] = []
        with self._connection.asking() as client:
            token: str | None = ""
            while token is not None:
                page = client.search_model_versions(
                    " and ".join(wanted),
                    max_results=_PAGE,
                    order_by=["creation_timestamp DESC", "version_number DESC"],
                    page_token=token or None,
                )
                recent = [one for one in page if since is None or one.creation_timestamp >= since]
                found += recent
                token = page.token if page.token and len(recent) == len(page) else None
        return [self._reader.listed(one) for one in found]

    def fetch(self, model: Model, into: Path) -> Path:
        """Put the version's files into the new folder *into* and verify its digest, file by file. Returns *into*."""
        self._reader.fetch(self._exactly(model.id), model, into)
        return into

    def samples(self, model: Model, into: Path) -> Path | None:
        """Put the version's samples into the new folder *into*, or return ``None`` when it has none."""
        return into if self._reader.samples(self._exactly(model.id), model.label, into) else None

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let *alias* name *version*, whatever it named before."""
        self._find(Reference(name=check_model_name(name), version=version))
        with self._connection.asking() as client:
            client.set_registered_model_alias(name, check_alias(alias), version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove *alias*; one that does not exist is no error, nor is a model that does not."""
        with suppress(MissingError), self._connection.asking() as client:
            client.delete_registered_model_alias(check_model_name(name), check_alias(alias))

    def aliases(self, name: str) -> Mapping[str, str]:
        """Return alias → version; a model that does not exist has none."""
        try:
            with self._connection.asking() as client:
                found = client.get_registered_model(check_model_name(name)).aliases
        except MissingError:
            return {}
        return {alias: str(version) for alias, version in found.items()}

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set *tags* on exactly this version; what was recorded at registration cannot be changed."""
        check_tags(tags)
        self._exactly(version)
        with self._connection.asking() as client:
            for key, value in tags.items():
                client.set_model_version_tag(version.name, version.version, key, value)

    def delete(self, reference: str) -> ModelVersion:
        """Delete one version, with the files that were copied for it. Raises ``RegistryError`` when there is none."""
        parsed = Reference.parse(reference)
        if parsed.version is None and parsed.alias is None:
            raise ConfigError(f"model {reference!r}: say which version is to be deleted, such as {reference}:1")
        found = self._find(parsed)
        with self._connection.asking() as client:
            client.delete_model_version(found.name, str(found.version))
        if found.run_id and read_tags(found.tags).record:
            self._publisher.forget(found.run_id)
        return self._reader.version(found)

    def ping(self) -> None:
        """Raise ``TryAgainError`` when the registry is away."""
        with self._connection.asking() as client:
            client.search_registered_models(max_results=1)

    def _find(self, reference: Reference) -> Any:
        """Return MLflow's row of what *reference* names; what is missing is answered with what is there."""
        name = reference.name
        try:
            with self._connection.asking() as client:
                if reference.version is not None:
                    return client.get_model_version(name, reference.version)
                if reference.alias is not None:
                    version = self.aliases(name).get(reference.alias)
                    if version is not None:
                        return client.get_model_version(name, version)
                else:
                    newest = client.search_model_versions(
                        f"name='{name}'", max_results=1, order_by=["version_number DESC"]
                    )
                    if newest:
                        return newest[0]
        except MissingError:
            pass
        raise MissingError(f"model {str(reference)!r}: {self._connection.where} has {self._known(name)}")

    def _exactly(self, version: ModelVersion) -> Any:
        """Return the row of exactly this version. Raises ``MissingError`` when it is gone or was created again."""
        if version.registry != self.identity:
            raise MissingError(f"model {version.label}: is from {version.registry}, and this is {self.identity}")
        try:
            with self._connection.asking() as client:
                found = client.get_model_version(version.name, version.version)
        except MissingError as error:
            raise MissingError(f"model {version.label}: was deleted from {self._connection.where}") from error
        if found.creation_timestamp != version.created:
            raise MissingError(f"model {version.label}: was deleted and registered again; start anew with it")
        return found

    def _known(self, name: str) -> str:
        found = self.versions(name)[:20]
        if not found:
            return f"no version of it; it has: {', '.join(self.names()) or 'no model at all'}"
        aliases = (f"@{alias}" for alias in sorted(self.aliases(name)))
        return "only " + ", ".join([*(f":{one.id.version}" for one in found), *aliases])
