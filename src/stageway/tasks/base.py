"""What several tasks need; tasks never call each other, they meet here."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from stageway import plugins, samples, store
from stageway.config.workspace import Workspace
from stageway.dossier import Deployment, Dossier
from stageway.errors import ConfigError
from stageway.evidence import Profile
from stageway.registries.base import Registry
from stageway.release import Release, slug
from stageway.samples import Sample
from stageway.targets.base import Target


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


def open_target(workspace: Workspace, stage: str) -> Target:
    """Return the target of *stage*. Raises ``ConfigError`` for a stage that the file does not have."""
    spec = workspace.spec.stages.get(stage)
    if spec is None:
        raise ConfigError(f"no stage is called {stage!r}; stageway.yml has: {', '.join(workspace.spec.stages)}")
    return cast(Target, plugins.load("target", spec.target)(workspace))


def service_name(workspace: Workspace, stage: str) -> str:
    """Return the name of the pipeline's service in *stage*, the same on every target."""
    return slug(f"{workspace.spec.name}-{stage}")


def serving_already(workspace: Workspace, stage: str, release: Release) -> bool:
    """Say whether *stage* answers with *release*, as its target reports it."""
    serving = open_target(workspace, stage).observe(service_name(workspace, stage)).serving
    return serving is not None and serving.release == release.id


def known(workspace: Workspace, reference: str) -> Dossier:
    """Return what registry and store know of a version: its facts, and its newest release with the evidence."""
    model = open_registry(workspace).get(reference)
    dossier = Dossier(pipeline=workspace.spec.name, model=model)
    with store.open(workspace) as opened:
        release = next(iter(opened.releases.of(model.id)), None)
        if release is None:
            return dossier
        evidence = opened.evidence.of(release.id)
        smoke = [
            found["smoke"]
            for stage in workspace.spec.stages
            if "smoke" in (found := opened.evidence.of(release.id, stage))
        ]
        rows = [opened.stages.current(stage) for stage in workspace.spec.stages]
    dossier = dossier.having(release=release).with_evidence(*evidence.values()).with_evidence(*smoke)
    if "contract" in evidence:
        dossier = dossier.having(contract=evidence["contract"].facts)
    if "profile" in evidence:
        dossier = dossier.having(profile=Profile.model_validate(evidence["profile"].facts))
    placed = (row for row in rows if row is not None and row.release == release.id)
    for row in placed:
        fields = {name: getattr(row, name) for name in Deployment.model_fields}
        dossier = dossier.deployed(Deployment.model_validate(fields))
    return dossier
