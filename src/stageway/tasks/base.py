"""What several tasks need; tasks never call each other, they meet here."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from stageway import plugins, samples
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.registries.base import Registry
from stageway.samples import Sample


def open_registry(workspace: Workspace) -> Registry:
    """Return the workspace's registry."""
    return cast(Registry, plugins.load("registry", "mlflow")(workspace))


def samples_for(dossier: Dossier, workspace: Workspace, registry: Registry) -> tuple[Sample, ...]:
    """Return the samples registered with the version, else those of the project; none where neither has any."""
    model = dossier.need_model()
    if model.has_samples:
        with TemporaryDirectory() as folder:
            own = registry.samples(model, Path(folder) / "samples")
            if own is not None:
                return samples.read(own)
    if workspace.spec.serve.samples is not None:
        return samples.read(workspace.root / workspace.spec.serve.samples)
    return ()
