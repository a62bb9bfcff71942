"""What is stored beside the files of a new version: contract, samples, and an ``MLmodel`` for MLflow's pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stageway import samples
from stageway.contract import Contract
from stageway.errors import ConfigError
from stageway.registries import content, mlmodel
from stageway.registries.base import NewVersion
from stageway.registries.content import Source


@dataclass(frozen=True)
class Described:
    """A registration, completed by what its files say of themselves."""

    want: NewVersion
    contract: Contract | None = None
    samples: tuple[Source, ...] = ()


def describe(want: NewVersion, path: Path) -> Described:
    """Complete *want*: what the caller says comes first, then the ``MLmodel`` in *path*, then the samples."""
    said = mlmodel.in_folder(path) if path.is_dir() else None
    found = _samples(want.samples) if want.samples is not None else ()
    if want.signature is not None:
        contract: Contract | None = Contract.from_json(want.signature)
    else:
        contract = (said.signature if said else None) or samples.contract(found)
    framework, version = want.framework, want.framework_version
    if framework is None:
        framework = said.framework if said is not None else "Onnx" if path.suffix == ".onnx" else None
    if version is None and said is not None and framework == said.framework:
        version = said.framework_version
    changed = want.model_copy(update={"framework": framework, "framework_version": version})
    return Described(changed, contract, _files(want.samples, found))


def write_mlmodel(path: Path, described: Described, data: str) -> None:
    """Write an ``MLmodel`` that names the user's file or folder *data* beside it."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, ModelSignature

    contract, want = described.contract, described.want
    signature = None
    if contract is not None:
        try:
            signature = ModelSignature.from_dict(mlmodel.to_signature(contract))
        except MlflowException:
            signature = None  # a schema that this MLflow cannot say; the metadata has it all the same
    flavor = {"data": data, "framework": want.framework, "framework_version": want.framework_version}
    model = Model(
        flavors={"stageway": {key: value for key, value in flavor.items() if value is not None}},
        signature=signature,
        metadata={mlmodel.METADATA: contract.to_json()} if contract is not None else None,
    )
    model.save(str(path))


def _samples(folder: Path) -> tuple[samples.Sample, ...]:
    found = samples.read(folder)
    if not found:
        raise ConfigError(f"{folder}: holds no samples; put NAME.json and NAME{samples.EXPECTED} there")
    return found


def _files(folder: Path | None, found: tuple[samples.Sample, ...]) -> tuple[Source, ...]:
    if folder is None:
        return ()
    wanted = {f"samples/{one.name}.json" for one in found}
    wanted |= {f"samples/{one.name}{samples.EXPECTED}" for one in found if one.has_expected}
    inside = (one for one in content.walk(folder, "samples") if one.path in wanted)
    return tuple(Source(one.path.removeprefix("samples/"), one.real) for one in inside)
