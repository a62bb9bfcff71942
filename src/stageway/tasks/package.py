"""The task ``package``: from a version to a release, the immutable bundle that moves between stages."""

from __future__ import annotations

from stageway import images, output
from stageway.bundle import Bundle, trial
from stageway.config.workspace import Workspace
from stageway.contract import Contract, describe
from stageway.dossier import Dossier
from stageway.errors import RegistryError
from stageway.evidence import Evidence
from stageway.registries.base import Registry
from stageway.release import Model, Release
from stageway.tasks.base import open_registry


def package(dossier: Dossier, workspace: Workspace) -> Dossier:
    """Build the release: the immutable bundle that moves between stages.

    Layers that did not change are used again. A service that does not start is refused here, with its log.
    """
    model, registry = dossier.need_model(), open_registry(workspace)
    still_there(model, registry)
    bundle = images.build(workspace, model, registry)
    contract = _contract(dossier, bundle)
    release = Release(
        model=model.id,
        model_digest=model.digest,
        image_digest=bundle.digest,
        serve_digest=bundle.manifest.serve_digest,
        contract_digest=contract.digest,
        layers=bundle.manifest.layers,
    )
    said = f"takes {describe(contract.request)}, gives {describe(contract.response)}"
    output.note(
        f"contract by {contract.source}: {said}" if contract.source != "none" else "contract: nobody declares one"
    )
    if dossier.profile is not None and dossier.profile.image_digest != bundle.digest:
        output.note("the profile is of another image and is left behind; `stageway profile` measures this one")
        dossier = dossier.having(profile=None)
    packaged = dossier.having(release=release, contract=contract.to_json(), evidence=_kept(dossier, release))
    found = [Evidence(kind="contract", facts=contract.to_json(), release=release.id)]
    acceleration = bundle.acceleration()
    if acceleration is not None:
        found.append(Evidence(kind="acceleration", facts=acceleration, release=release.id))
    return packaged.with_evidence(*found)


def still_there(model: Model, registry: Registry) -> None:
    """Raise ``RegistryError`` when the version was deleted, or is another one of the same number by now."""
    if registry.find(model.id) is None:
        raise RegistryError(
            f"{model.label} is not in the registry any more: it was deleted, or deleted and registered again; "
            "run `stageway register` for a new version"
        )


def _contract(dossier: Dossier, bundle: Bundle) -> Contract:
    """Ask the started service, whose entry script may declare more than the version does; it never runs in here."""
    profile = dossier.profile
    if dossier.contract is not None and profile is not None and profile.image_digest == bundle.digest:
        return dossier.need_contract()
    with trial.serve(bundle, version=bundle.manifest.models[0].label) as service:
        return service.contract()


def _kept(dossier: Dossier, release: Release) -> tuple[Evidence, ...]:
    """Return what was known before as evidence about *release*; what is about another release is left behind."""
    of_version = {"metrics"} | ({"profile"} if dossier.profile is not None else set())
    return tuple(
        one.model_copy(update={"release": release.id})
        for one in dossier.evidence
        if one.kind in of_version or (one.kind != "profile" and one.release in (None, release.id))
    )
