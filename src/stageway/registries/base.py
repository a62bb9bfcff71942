"""The contract of a model registry: versions, files, tags, aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from stageway.facts import Fact
from stageway.release import Model, ModelVersion

FRAMEWORKS: tuple[str, ...] = (
    *("ScikitLearn", "Onnx", "TensorFlow", "TfKeras", "PyTorch", "Multi", "Custom"),
    *("XGBoost", "LightGBM", "TorchScript", "MLflow"),
)
"""Frameworks as Azure ML v1 names them, and those that are served without a script beyond v1's."""


class NewVersion(Fact):
    """What is to be registered. Exactly one source: *path* (file or folder), *run_id*, or *experiment* with *best_by*.

    *best_by* is a metric name, ``+name`` for the highest (default) or ``-name`` for the lowest. *artifact* names the
    path inside the run. *samples* is a folder of requests and expected replies. *signature* is Contract JSON.
    """

    name: str
    path: Path | None = None
    run_id: str | None = None
    experiment: str | None = None
    best_by: str | None = None
    artifact: str | None = None
    framework: str | None = None
    framework_version: str | None = None
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    properties: dict[str, str] = {}
    description: str = ""
    signature: dict[str, Any] | None = None
    samples: Path | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    again: bool = False


class Registered(Fact):
    """The version, and whether it is *new*; the same bytes again are the version that they already are."""

    model: Model
    new: bool


class Registry(Protocol):
    """Made with the workspace's registry address. *identity* is stable for one registry, whoever asks."""

    identity: str

    def register(self, want: NewVersion) -> Registered:
        """Register, or say which version has the same bytes (unless ``want.again``)."""

    def get(self, reference: str) -> Model:
        """Return ``name:version``, ``name@alias`` or the newest of ``name``; ``RegistryError`` when there is none."""

    def find(self, version: ModelVersion) -> Model | None:
        """Return the version with exactly this identity, or ``None`` when it is gone (or was created again)."""

    def names(self) -> Sequence[str]:
        """Return the registered models' names."""

    def versions(
        self, name: str, *, since: int | None = None, tags: Mapping[str, str] | None = None
    ) -> Sequence[Model]:
        """Return versions of *name*, newest first: created at or after *since* (ms), with all of *tags*.

        A list is quick, so files, metrics and signature are left to ``get`` and ``find``; a model that does not exist
        has no versions.
        """

    def fetch(self, model: Model, into: Path) -> Path:
        """Put the version's files into the new folder *into* and verify its digest. Returns *into*."""

    def samples(self, model: Model, into: Path) -> Path | None:
        """Put the version's samples into *into*, or return ``None`` when it has none."""

    def set_alias(self, name: str, alias: str, version: str) -> None: ...

    def delete_alias(self, name: str, alias: str) -> None: ...

    def aliases(self, name: str) -> Mapping[str, str]:
        """Return alias → version."""

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None: ...

    def delete(self, reference: str) -> ModelVersion:
        """Delete one version. Raises ``RegistryError`` when there is none."""

    def ping(self) -> None:
        """Raise ``TryAgainError`` when the registry is away."""
