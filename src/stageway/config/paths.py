"""Check that the paths a pipeline names exist and stay in the project's folder."""

from __future__ import annotations

from pathlib import Path

from stageway.config.document import Loc
from stageway.specs import PipelineSpec


def check_paths(spec: PipelineSpec, root: Path) -> list[tuple[Loc, str]]:
    """Return, by its place in the file, what is wrong with each path of ``serve``."""
    serve = spec.serve
    found: list[tuple[Loc, str]] = []

    def check(key: str, value: str | None, *, below: str = "", kind: str = "file", needed: bool = True) -> None:
        text = _wrong(root, below, value, kind, needed) if value is not None else ""
        if text:
            found.append((("serve", key), text))

    check("source-directory", serve.source_directory, kind="folder")
    source = "" if found else serve.source_directory or ""
    if not found:
        check("entry-script", serve.entry_script, below=source)
    check("dependencies", serve.dependencies)
    check("samples", serve.samples, kind="folder")
    check("lock", serve.lock, needed=False)
    return found


def _wrong(root: Path, below: str, value: str, kind: str, needed: bool) -> str:
    """Return what is wrong with the path *value*, or an empty string."""
    if "\0" in value or not value.strip():
        return f"{value!r} is not a path"
    if Path(value).is_absolute():
        return f"{value!r} is absolute; write it relative to the folder of this file"
    path = root / below / value
    try:
        inside = path.resolve().is_relative_to(root.resolve())
        exists = path.is_dir() if kind == "folder" else path.is_file()
    except (OSError, RuntimeError) as error:
        return f"{value!r} cannot be followed: {error}"
    if not inside:
        return f"{value!r} leaves the project's folder; move what it names into {root}"
    if needed and not exists:
        other = path.exists()
        return f"{value!r} is not a {kind}" if other else f"no {kind} is called {value!r} in {(root / below).resolve()}"
    return ""
