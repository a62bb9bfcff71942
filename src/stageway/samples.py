"""Sample requests and their expected replies: ``NAME.json`` and, beside it, ``NAME.expected.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageway.contract import Contract, infer, merge
from stageway.errors import ConfigError

EXPECTED = ".expected.json"


@dataclass(frozen=True)
class Sample:
    """One request body, and the reply that is expected of it (``has_expected`` tells ``null`` from none)."""

    name: str
    request: bytes
    expected: Any = None
    has_expected: bool = False

    @property
    def request_json(self) -> Any:
        return json.loads(self.request)


def read(folder: Path) -> tuple[Sample, ...]:
    """Read the samples in *folder*, sorted by name. Raises ``ConfigError`` for a missing folder or a broken file."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such samples folder; put NAME.json and NAME{EXPECTED} there")
    found: list[Sample] = []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(EXPECTED):
            continue
        beside = path.with_name(path.name.removesuffix(".json") + EXPECTED)
        has_expected = beside.is_file()
        found.append(
            Sample(
                name=path.stem,
                request=_bytes(path),
                expected=_json(beside) if has_expected else None,
                has_expected=has_expected,
            )
        )
        _json(path)
    return tuple(found)


def contract(found: Sequence[Sample]) -> Contract | None:
    """Return the contract that samples with their replies imply, or ``None`` when no sample has a reply."""
    told = [one for one in found if one.has_expected]
    if not told:
        return None
    requests = merge([infer(one.request_json) for one in found])
    return Contract(requests, merge([infer(one.expected) for one in told]), "samples")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from error
