"""Who may ask a stage: the file that its server checks requests against, and the key that a smoke test sends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError
from stageway.serving import auth as keys


def auth_file(workspace: Workspace, stage: str) -> Path | None:
    """Return the file that `stageway keys make` wrote for *stage*, or ``None`` where everybody may ask.

    Raises ``ConfigError`` when the file is not there, or no service would start with it.
    """
    auth = workspace.spec.stages[stage].auth
    if auth is None:
        return None
    path = (workspace.root / auth.file).resolve()
    where = f"{workspace.file.name}: stages.{stage}.auth.file"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file {auth.file!r}; `stageway keys make {auth.file}` writes one")
    try:
        keys.read(path)
    except ConfigError as error:
        raise ConfigError(f"{where}: {auth.file!r} {error.message.removeprefix(f'{path}: ')}") from None
    return path


def key_headers(workspace: Workspace, stage: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the headers by which the smoke test of *stage* is let in; none where everybody may ask.

    Asked before anything is placed, too: a wrong key says nothing about a release, so no release is refused for it.
    Raises ``ConfigError`` when the key is not where stageway.yml says, or the service would not take it.
    """
    auth, file = workspace.spec.stages[stage].auth, auth_file(workspace, stage)
    if auth is None or file is None:
        return {}
    where, key = f"{workspace.file.name}: stages.{stage}.auth.test-key", ""
    if auth.test_key.env is not None:
        where, key = f"{where}.env", environ.get(auth.test_key.env, "")
        place, missing = f"the variable {auth.test_key.env!r}", "is not set"
    else:
        where, place, missing = f"{where}.file", repr(auth.test_key.file), "cannot be read or is empty"
        key = _content(workspace.root / str(auth.test_key.file))
    if not key.strip():
        raise ConfigError(f"{where}: {place} {missing}; put one of the keys of {auth.file!r} there")
    bearer = f"Bearer {key.strip()}"
    if keys.Guard(str(file))({"authorization": bearer}) is not None:
        raise ConfigError(f"{where}: {place} holds no valid key or token; put one of the keys of {auth.file!r} there")
    return {"Authorization": bearer}


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
