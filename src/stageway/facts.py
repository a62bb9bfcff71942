"""What all facts share: frozen, JSON there and back, and one way to take a digest.

Canonical JSON (sorted keys, no spaces, UTF-8) after RFC 8785 as far as our own values need it: strings, integers,
booleans, null, and floats as Python writes them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Fact(BaseModel):
    """A frozen piece of knowledge; unknown keys are errors, so that a newer file is not read wrongly."""

    # A NaN must come back as one: JSON has no word for it, and null would be refused.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def canonical(value: Any) -> bytes:
    """Return *value* as canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: Any) -> str:
    """Return ``sha256:<hex>`` of the canonical JSON of *value*."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()
