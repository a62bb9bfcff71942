"""The dossier: the one JSON file that travels between tasks and grows by one fact a task.

What is not in it does not exist. A task asks for what it needs; the error names the task that leaves it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from stageway.contract import Contract
from stageway.errors import ConfigError
from stageway.evidence import Evidence, Profile
from stageway.facts import Fact
from stageway.release import Model, Release

T = TypeVar("T")

FORMAT = 1

LEFT_BY = {
    "model": "register",
    "contract": "package",
    "profile": "profile",
    "release": "package",
    "deployments": "deploy",
}


class Deployment(Fact):
    """A release placed in a stage. *at* in ms since 1970."""

    stage: str
    target: str
    service: str
    endpoint: str
    release: str
    at: int


class Dossier(Fact):
    """Facts so far, then the release and its evidence."""

    format: int = FORMAT
    pipeline: str = ""
    model: Model | None = None
    contract: dict[str, Any] | None = None
    profile: Profile | None = None
    release: Release | None = None
    evidence: tuple[Evidence, ...] = ()
    deployments: tuple[Deployment, ...] = ()

    def having(self, **facts: Any) -> Dossier:
        """Return a dossier that holds *facts* as well."""
        return self.model_copy(update=facts)

    def with_evidence(self, *more: Evidence) -> Dossier:
        """Return a dossier with *more*; newer evidence of the same kind and stage replaces older."""
        fresh = {(one.kind, one.stage) for one in more}
        kept = tuple(one for one in self.evidence if (one.kind, one.stage) not in fresh)
        return self.having(evidence=kept + more)

    def deployed(self, deployment: Deployment) -> Dossier:
        """Return a dossier that says *deployment* too."""
        kept = tuple(one for one in self.deployments if one.stage != deployment.stage)
        return self.having(deployments=(*kept, deployment))

    def need_model(self) -> Model:
        return self._need("model", self.model)

    def need_release(self) -> Release:
        return self._need("release", self.release)

    def need_contract(self) -> Contract:
        return Contract.from_json(self._need("contract", self.contract))

    def deployment(self, stage: str) -> Deployment:
        for one in self.deployments:
            if one.stage == stage:
                return one
        raise ConfigError(
            f"the dossier has no deployment in {stage!r}: run `stageway deploy --stage {stage}` (or promote) first"
        )

    def _need(self, name: str, value: T | None) -> T:
        if value is None:
            raise ConfigError(f"the dossier has no {name}: run `stageway {LEFT_BY[name]}` first")
        return value

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "dossier") -> Dossier:
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ConfigError(f"{where}: {key}: {first['msg'].lower()}; write it with `stageway register`") from error
        if found.format > FORMAT:
            raise ConfigError(f"{where}: format {found.format} is from a newer Stageway; upgrade this one")
        return found

    @classmethod
    def read(cls, path: Path) -> Dossier:
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError as error:
            raise ConfigError(f"{path}: no such dossier; `stageway register --dossier {path}` writes one") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error

    def write(self, path: Path) -> None:
        """Write the whole dossier or nothing: a killed task leaves the file it found."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.to_json())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
