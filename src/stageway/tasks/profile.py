"""The task ``profile``: measure the real service of a version, and recommend what a stage should give it."""

from __future__ import annotations

from typing import Annotated

from stageway import images, output, profiling, specs
from stageway.bundle import trial
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import ConfigError
from stageway.evidence import Evidence, Profile
from stageway.tasks.base import open_registry, samples_for


def profile(
    dossier: Dossier,
    workspace: Workspace,
    *,
    budget: Annotated[
        str | None, "How long to measure, such as 10s or 2m. Default: profile.budget of stageway.yml."
    ] = None,
) -> Dossier:
    """Measure service time, throughput, memory and CPU of the real service, and recommend CPU and memory.

    Also leaves the contract that the service declares. Without samples only its start and memory can be measured.
    """
    seconds = _seconds(budget) if budget is not None else workspace.spec.profile.budget
    model, registry = dossier.need_model(), open_registry(workspace)
    samples = samples_for(dossier, workspace, registry)
    bundle = images.build(workspace, model, registry)
    with trial.serve(bundle, version=bundle.manifest.models[0].label) as service:
        contract = service.contract()
        found, problem = profiling.measure(service, samples, budget=seconds, image_digest=bundle.digest)
        for line in _words(found, problem, bool(samples)):
            output.note(line)
    evidence = Evidence(kind="profile", facts=found.model_dump(mode="json"))
    return dossier.having(profile=found, contract=contract.to_json()).with_evidence(evidence)


def _seconds(budget: str) -> float:
    try:
        found = specs.seconds(budget)
    except ValueError as error:
        raise ConfigError(f"--budget: {error}") from error
    if found <= 0:
        raise ConfigError(f"--budget: {budget!r} leaves no time to measure; write 10s or 2m")
    return found


def _words(found: Profile, problem: str, samples: bool) -> list[str]:
    """Say what was measured; where nothing could be, say why."""
    lines = [f"measured: {found.sentence()}"]
    if not samples:
        return [*lines, "no samples, start and memory only; name some with serve.samples"]
    if found.errors:
        lines.append(f"{found.errors} of {found.requests} requests failed; {problem}")
    elif found.service_ms_p50 is None:
        lines.append(f"no request was answered within {found.budget_seconds:g} s; give profile a larger budget")
    return lines
