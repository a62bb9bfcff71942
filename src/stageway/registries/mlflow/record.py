"""What Stageway writes down about a version: tags of the version, and ``manifest.json`` among its run's artifacts.

Tags hold what a list shows; the manifest holds the files with their digests, the contract and the samples' digests.
Both are written before the version exists or with it, and never changed. ``tags_of`` and ``read_tags``, ``to_json`` and
``from_json`` are each other's inverse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stageway.contract import Contract
from stageway.errors import RegistryError
from stageway.registries.base import NewVersion
from stageway.registries.content import Manifest

DIGEST = "stageway.digest"
_SIZE = "stageway.size"
_RECORD = "stageway.record"
_SAMPLES = "stageway.samples"
_FRAMEWORK = "stageway.framework"
_FRAMEWORK_VERSION = "stageway.framework_version"
_COMMIT = "stageway.git_commit"
_DIRTY = "stageway.git_dirty"
_PROPERTY = "stageway.property."
_OWN = (DIGEST, _SIZE, _RECORD, _SAMPLES, _FRAMEWORK, _FRAMEWORK_VERSION, _COMMIT, _DIRTY)


def is_own(key: str) -> bool:
    """Say whether a tag is one of the facts written at registration, which nobody else may set."""
    return key in _OWN or key.startswith(_PROPERTY)


@dataclass(frozen=True)
class Tags:
    """The tags of a version as facts; *rest* are the user's."""

    digest: str = ""
    size: int = 0
    record: str | None = None
    samples: int = 0
    framework: str | None = None
    framework_version: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    properties: dict[str, str] = field(default_factory=dict)
    rest: dict[str, str] = field(default_factory=dict)


def tags_of(want: NewVersion, manifest: Manifest, record: str, samples: int) -> dict[str, str]:
    """Return the tags of a version that is *want* with the files of *manifest*; *record* is its folder in the run."""
    known = {
        DIGEST: manifest.digest,
        _SIZE: str(manifest.size),
        _RECORD: record,
        _SAMPLES: str(samples) if samples else None,
        _FRAMEWORK: want.framework,
        _FRAMEWORK_VERSION: want.framework_version,
        _COMMIT: want.git_commit,
        _DIRTY: None if want.git_dirty is None else str(want.git_dirty).lower(),
    }
    properties = {_PROPERTY + name: value for name, value in want.properties.items()}
    return want.tags | properties | {name: value for name, value in known.items() if value is not None}


def adopted(manifest: Manifest) -> dict[str, str]:
    """Return the tags that a version made by another tool gets when its files are first read."""
    return {DIGEST: manifest.digest, _SIZE: str(manifest.size)}


def read_tags(tags: Mapping[str, str]) -> Tags:
    """Read what ``tags_of`` or ``adopted`` wrote; a version that neither wrote has no digest."""
    dirty = tags.get(_DIRTY)
    return Tags(
        digest=tags.get(DIGEST, ""),
        size=_number(tags.get(_SIZE)),
        record=tags.get(_RECORD),
        samples=_number(tags.get(_SAMPLES)),
        framework=tags.get(_FRAMEWORK),
        framework_version=tags.get(_FRAMEWORK_VERSION),
        git_commit=tags.get(_COMMIT),
        git_dirty=None if dirty is None else dirty == "true",
        properties={key.removeprefix(_PROPERTY): tags[key] for key in tags if key.startswith(_PROPERTY)},
        rest={key: value for key, value in tags.items() if not is_own(key)},
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


@dataclass(frozen=True)
class Record:
    """``manifest.json``. The files are below *root*: a folder of the run's artifacts, or the address of a model that
    MLflow keeps outside runs; *within* is the first part of their paths when it is the name of *root* itself."""

    manifest: Manifest
    root: str
    within: str = ""
    contract: Contract | None = None
    samples: Manifest | None = None

    def to_json(self) -> str:
        value = self.manifest.to_json() | {
            "root": self.root,
            "within": self.within,
            "contract": self.contract.to_json() if self.contract else None,
            "samples": self.samples.to_json() if self.samples else None,
        }
        return json.dumps(value, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Record:
        try:
            value: dict[str, Any] = json.loads(text)
            contract, samples = value.get("contract"), value.get("samples")
            return cls(
                manifest=Manifest.from_json(value, where),
                root=str(value["root"]),
                within=str(value["within"]),
                contract=Contract.from_json(contract) if contract else None,
                samples=Manifest.from_json(samples, where) if samples else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(f"{where}: is damaged ({error}); register the version again") from error
