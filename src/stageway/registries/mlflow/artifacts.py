"""Where MLflow keeps a file, and how to read it: in place when it is on this machine, else downloaded first."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from stageway.errors import RegistryError
from stageway.registries.mlflow.connection import EMBEDDED, Connection, MissingError


class Artifacts:
    """The artifact store behind one registry."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def local(self, uri: str) -> Path | None:
        """Return the path of *uri* on this machine, or ``None`` when it is elsewhere.

        A workspace that was moved takes its artifacts along: MLflow remembers absolute paths, so what is missing there
        is looked for in the workspace.
        """
        parts = urlsplit(uri)
        if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
            return None
        path = Path(unquote(parts.path) if parts.scheme else uri)
        if self.connection.embedded and not path.exists():
            here = Path(*self.connection.state.parts[-1:], EMBEDDED).parts
            for at in range(len(path.parts) - len(here), 0, -1):
                if path.parts[at : at + len(here)] == here:
                    return self.connection.state.joinpath(EMBEDDED, *path.parts[at + len(here) :])
        return path

    def settle(self, uri: str) -> str:
        """Return the storage address behind a version's source, which may name a run or another model."""
        scheme, _, rest = uri.partition(":/")
        rest = rest.strip("/")
        with self.connection.asking() as client:
            if scheme == "runs":
                run_id, _, path = rest.partition("/")
                run = client.get_run(run_id)
                model = logged_model(client, run, path)
                return str(model.artifact_location) if model is not None else join(run.info.artifact_uri, path)
            if scheme == "models" and "/" not in rest:
                return str(client.get_logged_model(rest).artifact_location)
            if scheme == "models":
                name, _, version = rest.partition("/")
                return self.settle(str(client.get_model_version_download_uri(name, version)))
        return uri

    def get(self, uri: str, scratch: Path) -> Path:
        """Return the file or folder at the storage address *uri*: where it is, or downloaded into *scratch*."""
        path = self.local(uri)
        if path is not None:
            if not path.exists():
                raise MissingError(f"{self.connection.where}: {path} is gone; register the version again")
            return path
        parent, _, last = uri.rpartition("/")
        with self.connection.asking(), self.connection.transfers():
            scratch.mkdir(parents=True, exist_ok=True)
            return Path(self._repository(parent).download_artifacts(last, dst_path=str(scratch)))

    def put(self, folder: Path, uri: str, path: str) -> None:
        """Store what is in *folder* as the folder *path* below the storage address *uri*."""
        with self.connection.asking(), self.connection.transfers():
            self._repository(uri).log_artifacts(str(folder), path)

    def names(self, uri: str, path: str = "") -> list[str]:
        """Return the paths, from *uri* on, of what is in the folder *path* below it, if it is one."""
        with self.connection.asking():
            return [str(one.path) for one in self._repository(uri).list_artifacts(path or None)]

    def _repository(self, uri: str) -> Any:
        """Return MLflow's access to *uri*; unlike the client's own, it asks the registry's server in all versions."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(uri, tracking_uri=self.connection.uri)

    def text(self, uri: str, scratch: Path) -> str:
        """Return the text of the file at *uri*."""
        path = self.get(uri, scratch)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"{self.connection.where}: {path}: cannot be read: {error}") from error


def join(uri: str, path: str) -> str:
    """Return the address of *path* below *uri*."""
    return f"{uri.rstrip('/')}/{path}" if path else uri


def logged_models(client: Any, run: Any) -> list[Any]:
    """Return the models that a run logged (MLflow 3 keeps them beside the run's artifacts)."""
    outputs = getattr(run, "outputs", None)
    return [client.get_logged_model(one.model_id) for one in (outputs.model_outputs if outputs else ())]


def logged_model(client: Any, run: Any, name: str) -> Any:
    """Return the run's newest logged model called *name*, or ``None``."""
    found = [one for one in logged_models(client, run) if one.name == name]
    return max(found, key=lambda one: one.creation_timestamp) if found else None
