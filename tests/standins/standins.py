"""Cheap plug-ins of a third party: tasks whose every effect is one line of a file, a registry and a target of files.

Found by entry points, as everybody's are. ``script.json`` says what a task does when it is called: wait for a file,
raise an error (a number of times, or always).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stageway import errors, output, store
from stageway.config.workspace import Workspace
from stageway.dossier import Deployment, Dossier
from stageway.errors import RefusedError, RegistryError, TryAgainError
from stageway.evidence import Evidence
from stageway.registries.base import NewVersion, Registered
from stageway.release import Model, ModelVersion, Reference, Release
from stageway.targets.base import Observed, Revision, Want
from stageway.tasks.judging import conditions, require


class FileRegistry:
    """Versions in ``registry.json``: label → {created, metrics}. ``away`` in it makes the registry be away."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = workspace.root / "registry.json"
        self.identity = workspace.registry_identity

    def _models(self) -> list[Model]:
        try:
            said = json.loads(self.path.read_text())
        except FileNotFoundError:
            said = {}
        if "away" in said:
            raise TryAgainError("the registry does not answer", after=0.05)
        found = []
        for label, facts in said.items():
            name, _, version = label.partition(":")
            identity = ModelVersion(registry=self.identity, name=name, version=version, created=facts["created"])
            found.append(Model(id=identity, digest=f"sha256:{label}", metrics=facts.get("metrics", {})))
        return sorted(found, key=lambda model: model.id.created)

    def get(self, reference: str) -> Model:
        asked = Reference.parse(reference)
        for model in reversed(self._models()):
            if model.id.name == asked.name and asked.version in (None, model.id.version):
                return model
        raise RegistryError(f"{reference}: there is no such version")

    def find(self, version: ModelVersion) -> Model | None:
        return next((model for model in self._models() if model.id == version), None)

    def names(self) -> Sequence[str]:
        return sorted({model.id.name for model in self._models()})

    def versions(
        self, name: str, *, since: int | None = None, tags: Mapping[str, str] | None = None
    ) -> Sequence[Model]:
        found = [model for model in self._models() if model.id.name == name and model.id.created >= (since or 0)]
        return list(reversed(found))

    def ping(self) -> None:
        self._models()

    def register(self, want: NewVersion) -> Registered:
        raise NotImplementedError

    def fetch(self, model: Model, into: Path) -> Path:
        raise NotImplementedError

    def samples(self, model: Model, into: Path) -> Path | None:
        return None

    def set_alias(self, name: str, alias: str, version: str) -> None: ...

    def delete_alias(self, name: str, alias: str) -> None: ...

    def aliases(self, name: str) -> Mapping[str, str]:
        return {}

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None: ...

    def delete(self, reference: str) -> ModelVersion:
        raise NotImplementedError


class FileTarget:
    """What runs is one file a service: the labels of this place."""

    capabilities: frozenset[str] = frozenset({"remote"})

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.root / "running"

    def plan(self, want: Want) -> list[str]:
        return [f"{want.stage}: runs as a file"]

    def apply(self, want: Want) -> Observed:
        return self.place(want.service, want.release)

    def place(self, service: str, release: Release) -> Observed:
        self.folder.mkdir(exist_ok=True)
        fresh = self.folder / f".{service}-{os.getpid()}"
        fresh.write_text(f"{release.id} {release.label}")
        fresh.replace(self.folder / service)
        return self.observe(service)

    def observe(self, service: str) -> Observed:
        try:
            release, label = (self.folder / service).read_text().split()
        except FileNotFoundError:
            return Observed(service=service)
        revision = Revision(name=release, release=release, label=label, weight=1.0, health="ready", since=0)
        return Observed(service=service, endpoint=f"http://{service}", revisions=(revision,))

    def route(self, service: str, weights: Mapping[str, float]) -> Observed:
        return self.observe(service)

    def logs(self, service: str, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
        return iter(())

    def delete(self, service: str) -> None:
        (self.folder / service).unlink(missing_ok=True)


def _act(workspace: Workspace, dossier: Dossier, task: str, stage: str = "", label: str = "") -> None:
    """Write the effect down, then do what the script says."""
    name = f"{task} {stage}".strip()
    label = label or dossier.need_model().label
    effects = workspace.root / "effects"
    with effects.open("a") as file:
        file.write(f"{name} {label} {os.getpid()}\n")
    script = workspace.root / "script.json"
    for key, what in (json.loads(script.read_text()) if script.exists() else {}).items():
        if key not in (name, f"{name} {label}"):
            continue
        if "until" in what:
            while not (workspace.root / what["until"]).exists():
                time.sleep(0.01)
        called = sum(line.startswith(f"{name} {label} ") for line in effects.read_text().splitlines())
        if "raise" in what and called <= what.get("times", 1_000_000):
            raise _error(what)
    output.note(f"{name} of {label}")


def _error(what: dict[str, Any]) -> Exception:
    kind = getattr(errors, what["raise"], None)
    if kind is None:
        return ValueError(what["say"])
    if kind is TryAgainError:
        return TryAgainError(what["say"], after=what.get("after", 0.01))
    made: Exception = kind(what["say"])
    return made


def register(dossier: Dossier, workspace: Workspace, *, version: str) -> Dossier:
    _act(workspace, dossier, "register", label=version)
    return dossier.having(model=FileRegistry(workspace).get(version))


def profile(dossier: Dossier, workspace: Workspace) -> Dossier:
    _act(workspace, dossier, "profile")
    return dossier


def package(dossier: Dossier, workspace: Workspace) -> Dossier:
    _act(workspace, dossier, "package")
    model = dossier.need_model()
    release = Release(
        model=model.id, model_digest=model.digest, image_digest="i", serve_digest="s", contract_digest="c"
    )
    return dossier.having(release=release)


def deploy(dossier: Dossier, workspace: Workspace, *, stage: str) -> Dossier:
    _act(workspace, dossier, "deploy", stage)
    return _place(dossier, workspace, stage, "deployed")


def promote(dossier: Dossier, workspace: Workspace, *, to: str) -> Dossier:
    _act(workspace, dossier, "promote", to)
    with store.open(workspace) as opened:
        label = dossier.need_release().label
        require(conditions(dossier, workspace, opened, to, proven_before=False), label, to)
    return _place(dossier, workspace, to, "promoted")


def smoke_test(dossier: Dossier, workspace: Workspace, *, stage: str) -> Dossier:
    release = dossier.need_release()
    seen = Evidence(kind="smoke", facts={"passed": True, "requests": 1}, release=release.id, stage=stage)
    with store.open(workspace) as opened:
        try:
            _act(workspace, dossier, "smoke-test", stage)
        except RefusedError as error:
            opened.stages.rejected(stage, release.id, error.message)
            raise
        opened.stages.proven(stage, release.id)
        opened.evidence.put(seen)
    return dossier.with_evidence(seen)


def rollback(
    dossier: Dossier, workspace: Workspace, *, stage: str, automatic: bool = False, reason: str | None = None
) -> Dossier:
    _act(workspace, dossier, "rollback", stage)
    with store.open(workspace) as opened:
        good = opened.stages.last_good(stage, not_release=dossier.need_release().id)
    if good is None:
        raise RefusedError(f"{stage}: nothing to roll back to")
    return _place(dossier.having(release=good), workspace, stage, "rolled-back")


def _place(dossier: Dossier, workspace: Workspace, stage: str, how: Any) -> Dossier:
    release, service = dossier.need_release(), f"{workspace.spec.name}-{stage}"
    FileTarget(workspace).place(service, release)
    at = int(time.time() * 1000)
    with store.open(workspace) as opened:
        opened.stages.record(stage, release, service, "local", f"http://{service}", how, at)
        opened.evidence.put(Evidence(kind="metrics", facts=dict(dossier.need_model().metrics), release=release.id))
    return dossier.deployed(
        Deployment(
            stage=stage, target="local", service=service, endpoint=f"http://{service}", release=release.id, at=at
        )
    )
