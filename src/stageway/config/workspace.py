"""The workspace: where a project's registry, state and settings are, found from ``stageway.yml`` upwards."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from stageway.config.loader import load_pipeline
from stageway.errors import ConfigError
from stageway.specs import PipelineSpec

FILE = "stageway.yml"


@dataclass(frozen=True)
class Workspace:
    """One project: its file, and the addresses of what it uses. Made by ``Workspace.open``."""

    root: Path
    spec: PipelineSpec
    id: str
    registry_uri: str
    registry_identity: str
    database_url: str
    cache: Path

    @property
    def file(self) -> Path:
        return self.root / FILE

    @property
    def state(self) -> Path:
        """The embedded default's folder, ``.stageway/``."""
        return self.root / ".stageway"

    @property
    def embedded_registry(self) -> bool:
        return self.registry_uri.startswith("sqlite:") and str(self.state) in self.registry_uri

    @classmethod
    def open(cls, start: Path | None = None, environ: Mapping[str, str] = os.environ) -> Workspace:
        """Find the workspace at or above *start* (default: ``STAGEWAY_WORKSPACE``, else the current folder).

        Raises ``ConfigError`` when there is none, or its file is wrong.
        """
        root = find(start or Path(environ.get("STAGEWAY_WORKSPACE") or "."))
        spec = load_pipeline(root / FILE)
        state = root / ".stageway"
        registry = environ.get("MLFLOW_TRACKING_URI") or _below(root, spec.workspace.registry)
        database = environ.get("STAGEWAY_DATABASE_URL") or _below(root, spec.workspace.database)
        if database is not None and not database.startswith("sqlite") and spec.workspace.name is None:
            raise ConfigError(
                f"{FILE}: workspace.name: missing, and the database is shared; give this project a name in it"
            )
        identity = spec.workspace.name or _identity(state)
        return cls(
            root=root,
            spec=spec,
            id=identity,
            registry_uri=registry or f"sqlite:///{state / 'mlflow.db'}",
            registry_identity=_without_credentials(registry) if registry else f"workspace-{identity}",
            database_url=database or f"sqlite:///{state / 'state.db'}",
            cache=Path(environ.get("STAGEWAY_CACHE") or user_cache_path("stageway")).expanduser().absolute(),
        )


def find(start: Path) -> Path:
    """Return the folder at or above *start* that holds ``stageway.yml``."""
    start = start.resolve()
    if start.is_file() and start.name == FILE:
        return start.parent
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError(f"no {FILE} in {start} or above it; `stageway init NAME` starts a project")


def _identity(state: Path) -> str:
    """Return the workspace's random id, made once; two first commands at once agree on one."""
    path = state / "workspace.json"
    try:
        state.mkdir(mode=0o700, exist_ok=True)
        found = state.stat()
        if found.st_uid == os.getuid() and found.st_mode & 0o077:  # one of before, or made by hand
            state.chmod(0o700)
        ignore = state / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        fresh = state / f".workspace-{secrets.token_hex(4)}"
        if not path.exists():
            fresh.write_text(json.dumps({"id": secrets.token_hex(8)}) + "\n", encoding="utf-8")
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except OSError as error:
        raise ConfigError(f"{state}: cannot be written: {error.strerror}; the workspace must be writable") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged; restore it, or remove {state} to start anew") from error


def _below(root: Path, uri: str | None) -> str | None:
    """Return *uri*; a relative SQLite file is meant from the project's folder, wherever the command runs."""
    scheme, mark, path = (uri or "").partition(":///")
    if not mark or not scheme.startswith("sqlite") or not path or path.startswith(("/", ":")):
        return uri
    return f"{scheme}:///{root / path}"


def _without_credentials(uri: str) -> str:
    scheme, mark, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return (scheme + mark + host.rpartition("@")[2] + slash + path).rstrip("/")
