"""Who may ask a stage: the file that its server checks requests against, and the key that a smoke test sends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError


def auth_file(workspace: Workspace, stage: str) -> Path | None:
    """Return the file that `stageway keys make` wrote for *stage*, or ``None`` where everybody may ask.

    Raises ``ConfigError`` when the file is not there.
    """
    auth = workspace.spec.stages[stage].auth
    if auth is None:
        return None
    path = (workspace.root / auth.file).resolve()
    if not path.is_file():
        where = f"{workspace.file.name}: stages.{stage}.auth.file"
        raise ConfigError(f"{where}: no such file {auth.file!r}; `stageway keys make {auth.file}` writes one")
    return path


def key_headers(workspace: Workspace, stage: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the headers by which the smoke test of *stage* is let in; none where everybody may ask.

    Raises ``ConfigError`` when the key is not where the file says.
    """
    auth = workspace.spec.stages[stage].auth
    if auth is None:
        return {}
    where, key = f"{workspace.file.name}: stages.{stage}.auth.test-key", ""
    if auth.test_key.env is not None:
        where, key = f"{where}.env", environ.get(auth.test_key.env, "")
        missing = f"the variable {auth.test_key.env!r} is not set"
    else:
        path = workspace.root / str(auth.test_key.file)
        where, missing = f"{where}.file", f"{auth.test_key.file!r} is not there or empty"
        key = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not key.strip():
        raise ConfigError(f"{where}: {missing}; put one of the keys of {auth.file!r} there")
    return {"Authorization": f"Bearer {key.strip()}"}
