"""Put a release into a stage, by the one way that deploy, promote and rollback share.

The order is place → observe → alias → history, and every step may be done twice: whoever is killed between any two of
them makes it right by running the same task again.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stageway import output
from stageway.bundle import Bundle
from stageway.config.workspace import Workspace
from stageway.dossier import Deployment, Dossier
from stageway.errors import ConfigError, PackagingError, RegistryError, TargetError
from stageway.evidence import Profile
from stageway.gates.base import refusals as gate_refusals
from stageway.release import Release
from stageway.targets.base import DeploymentConfig, Observed, Target, Want
from stageway.tasks.access import auth_file, key_headers
from stageway.tasks.base import open_registry, open_target, service_name
from stageway.tasks.judging import evidence_of

if TYPE_CHECKING:
    from stageway.store import Store

How = Literal["deployed", "promoted", "rolled-back"]

RELEASE_TAG = "stageway.release.{stage}"
"""Tag of a version: the release that the stage named by its alias should hold."""


def refusals(workspace: Workspace, stage: str) -> list[str]:
    """Say what *stage* asks for and would not get, with the smallest honest alternative; empty when all is kept."""
    target, spec = open_target(workspace, stage), workspace.spec.stages[stage]
    found = []
    if spec.rollout.canary and spec.rollout.canary != (1.0,):
        steps = ", ".join(f"{step * 100:g}%" for step in spec.rollout.canary)
        why = (
            "a gradual rollout is not there yet"
            if "weights" in target.capabilities
            else f"target {spec.target!r} cannot share traffic between releases"
        )
        found.append(f"rollout.canary: [{steps}]: {why}; leave it out: traffic moves at once when the release answers")
    if spec.rollout.bake:
        found.append(f"rollout.bake: {spec.rollout.bake:g}s: waiting between steps is not there yet; leave it out")
    if spec.resources != "auto" and "resources" not in target.capabilities:
        found.append(
            f"resources: target {spec.target!r} does not enforce cpu and memory; "
            "write `resources: auto`, which only recommends"
        )
    try:
        key_headers(workspace, stage)
    except ConfigError as error:
        found.append(error.message.partition(f"stages.{stage}.")[2])
    found += [f"gates.{one}" for one in gate_refusals(spec.gates, list(workspace.spec.stages))]
    return [f"stages.{stage}.{one}" for one in found]


def check(workspace: Workspace, stage: str) -> None:
    """Raise ``ConfigError`` for a stage that asks for what it would not get."""
    found = refusals(workspace, stage)
    if found:
        raise ConfigError(f"{workspace.file.name}: {found[0]}", detail="\n".join(found[1:]))


def want(workspace: Workspace, stage: str, release: Release, profile: Profile | None = None) -> Want:
    """Say what the stage's target is asked for. Raises ``PackagingError`` when the bundle is not on this machine."""
    target, spec = open_target(workspace, stage), workspace.spec.stages[stage]
    cpu, memory = _resources(workspace, stage, target, profile)
    config = DeploymentConfig(
        port=spec.port,
        cpu=cpu,
        memory_mib=memory,
        workers=spec.workers,
        ready_timeout=spec.ready_timeout,
        drain_timeout=spec.drain_timeout,
        requests=spec.requests,
        auth_file=auth_file(workspace, stage),
        cors=spec.cors,
        collect=spec.collect,
        telemetry=spec.telemetry,
    )
    folder = _bundle(workspace, release, target)
    return Want(service=service_name(workspace, stage), stage=stage, release=release, config=config, bundle=folder)


def _resources(
    workspace: Workspace, stage: str, target: Target, profile: Profile | None
) -> tuple[float | None, float | None]:
    """Return cpu and memory for a target that enforces them; ``auto`` takes what the profile recommends."""
    asked = workspace.spec.stages[stage].resources
    if "resources" not in target.capabilities:
        return None, None
    if asked != "auto":
        return asked.cpu, asked.memory
    if profile is None:
        raise ConfigError(
            f"{workspace.file.name}: stages.{stage}.resources: 'auto' takes what the profile recommends, and there is "
            "none; run `stageway profile` first, or write cpu and memory"
        )
    return profile.recommended_cpu, float(profile.recommended_memory_mib)


def _bundle(workspace: Workspace, release: Release, target: Target) -> Path | None:
    folder = workspace.cache / "bundles" / release.image_digest.removeprefix("sha256:")
    if "remote" in target.capabilities and not folder.exists():
        return None
    try:
        Bundle.read(folder)
    except PackagingError as error:
        raise PackagingError(
            f"{release.label}: the bundle of {release.id} is not on this machine; "
            f"run `stageway package {release.label}`",
            detail=error.message,
        ) from error
    return folder


def still_registered(workspace: Workspace, release: Release) -> None:
    """Raise ``RegistryError`` for a release of a version that is gone, so that nothing is placed for it."""
    if open_registry(workspace).find(release.model) is None:
        raise RegistryError(
            f"{release.label}: this version was deleted from the registry (or deleted and registered again) after "
            f"{release.id} was made; register it, and run the new version"
        )


def remember(dossier: Dossier, store: Store) -> None:
    """Keep the dossier's release and evidence in the store: what gates compare with, and what a rollback places."""
    with store.write():
        store.releases.put(dossier.need_release())
        store.evidence.put(*evidence_of(dossier))


def place(workspace: Workspace, store: Store, wanted: Want, how: How) -> Deployment:
    """Make the stage hold the release and answer with it, then write it down: release tag, alias, history."""
    stage, release = wanted.stage, wanted.release
    target, spec = open_target(workspace, stage), workspace.spec.stages[stage]
    for sentence in target.plan(wanted):
        output.note(f"{stage}: {sentence}")
    output.note(f"placing {release.label} ({release.id}) in {stage} ({spec.target})")
    endpoint = _answering(target.apply(wanted), wanted)
    output.note(f"{stage} answers with {release.label} ({release.id}) at {endpoint}")
    _label(workspace, release, stage)
    at = int(time.time() * 1000)
    store.stages.record(stage, release, wanted.service, spec.target, endpoint, how, at)
    return Deployment(
        stage=stage, target=spec.target, service=wanted.service, endpoint=endpoint, release=release.id, at=at
    )


def _answering(observed: Observed, wanted: Want) -> str:
    """Return the endpoint, believing only what the place reports."""
    serving = observed.serving
    if observed.endpoint is None or serving is None or serving.release != wanted.release.id:
        holds = f"{serving.label} ({serving.release})" if serving is not None else "nothing"
        raise TargetError(
            f"{wanted.stage}: {wanted.service} should answer with {wanted.release.label} ({wanted.release.id}), "
            f"and the target reports {holds}",
            detail=serving.log_tail if serving is not None else "",
        )
    return observed.endpoint


def _label(workspace: Workspace, release: Release, stage: str) -> None:
    """Say in the registry what the stage holds. A rollback may place a version that the registry no longer has."""
    registry = open_registry(workspace)
    if registry.find(release.model) is None:
        output.note(f"{release.label} is no longer in the registry; {stage} has no alias until the next release")
        registry.delete_alias(release.model.name, stage)
        return
    registry.set_tags(release.model, {RELEASE_TAG.format(stage=stage): release.id})
    registry.set_alias(release.model.name, stage, release.model.version)


@contextmanager
def alone(workspace: Workspace, stage: str) -> Iterator[None]:
    """Let one process at a time place something in *stage* from this workspace; others wait."""
    folder = workspace.state / "locks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / f"stage-{stage}").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            output.note(f"another process is placing something in {stage}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
