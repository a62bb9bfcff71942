"""Which version of which model, and the immutable bundle made of it: what moves between stages."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

from stageway.errors import ConfigError
from stageway.facts import Fact, digest

MODEL_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}$")
"""Names that can be deployed: the rule of Azure ML v1."""

REFERENCE = re.compile(r"(?P<name>[^:@]+)(?::(?P<version>[0-9]{1,18})|@(?P<alias>[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}))?")


def check_model_name(name: str, where: str = "model") -> str:
    """Return *name*, or raise ``ConfigError`` when it could leave a folder or break a reference."""
    if not MODEL_NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{where}: a model cannot be called {name!r}; use letters, digits, '.', '_' and '-' "
            "(at most 255, a letter or digit first, no '..')"
        )
    return name


class Reference(Fact):
    """``name``, ``name:version`` or ``name@alias``, as people write it."""

    name: str
    version: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        match = REFERENCE.fullmatch(text)
        if match is None:
            raise ConfigError(f"model {text!r}: write NAME, NAME:VERSION or NAME@ALIAS")
        check_model_name(match["name"])
        return cls(name=match["name"], version=match["version"], alias=match["alias"])

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return f"{self.name}@{self.alias}" if self.alias is not None else self.name


class ModelVersion(Fact):
    """The identity of a version. *created* (ms since 1970, UTC) tells a re-created ``name:1`` from the first one."""

    registry: str
    name: str
    version: str
    created: int

    @property
    def label(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def key(self) -> str:
        """One string for the whole identity, the same from whatever source it is learned."""
        return f"{self.registry}/{self.name}/{self.version}@{self.created}"

    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self.created / 1000, UTC)


class Model(Fact):
    """What the registry says of one version."""

    id: ModelVersion
    digest: str
    size: int = 0
    files: tuple[str, ...] = ()
    framework: str | None = None
    framework_version: str | None = None
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    properties: dict[str, str] = {}
    description: str = ""
    signature: dict[str, Any] | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    run_id: str | None = None
    has_samples: bool = False

    @property
    def label(self) -> str:
        return self.id.label


class Layer(Fact):
    """One layer of a bundle: *digest* is of its content, *key* of what it was made from."""

    kind: str
    digest: str
    key: str
    size: int
    files: int


class Release(Fact):
    """{model version and digest, image digest, serve-config digest, contract digest}; its id is the digest of those."""

    model: ModelVersion
    model_digest: str
    image_digest: str
    serve_digest: str
    contract_digest: str
    layers: tuple[Layer, ...] = ()

    @property
    def id(self) -> str:
        parts = self.model_dump(mode="json", exclude={"layers"})
        return "r-" + digest(parts).removeprefix("sha256:")[:16]

    @property
    def label(self) -> str:
        return self.model.label


_TAIL = re.compile(r"-[0-9a-f]{6}$")
"""What a slug ends with; a name that does so by itself is lengthened too, or it could be another name's slug."""


def slug(name: str, longest: int = 32) -> str:
    """Return *name* as an object name for services, Docker and Kubernetes (lower case, DNS label).

    Names that differ only in what is lost get different slugs: a piece of the digest is added when anything was lost.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
    if not plain[0].isalpha():
        plain = "m-" + plain
    if plain == name and len(plain) <= longest and not _TAIL.search(name):
        return plain
    tail = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{plain[: longest - 7].rstrip('-')}-{tail}"
