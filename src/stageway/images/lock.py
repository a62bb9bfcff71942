"""``stageway.lock``: what a service needs, resolved once, with hashes, for every platform and Python from one on.

A uv-compiled requirements file under a header that holds the digest of what it was resolved from (the requirements
file, serving's own requirements, the lowest Python version), so that a stale lock is told from a current one without
any network. The user's requirements and serving's are resolved *together*: a conflict is found here, not in a service.
The file names no package index. It is universal (one file for all platforms, with markers) because it is committed:
the colleague's laptop, CI and the image read the same one.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stageway import output, serving
from stageway.bundle import machine
from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, PackagingError
from stageway.facts import digest
from stageway.images import cache as caches
from stageway.images import uv_tool

LOWEST_PYTHON = "3.11"
"""What a lock holds for where ``serve.python`` says nothing; not this machine's version, so that all make one lock."""

ACCELERABLE = re.compile(r"^\s*(?:scikit-learn|xgboost|xgboost-cpu|lightgbm)\b", re.IGNORECASE | re.MULTILINE)
"""Packages whose models may get a verified ONNX form, when they are served without an entry script."""

ACCELERATING = (
    # Intel Macs have no wheels of it any more.
    'onnxruntime>=1.17; sys_platform != "darwin" or platform_machine == "arm64"',
)
"""What such a form runs with."""

HEADER = """\
# What the service needs: resolved by `stageway lock` from {source} and serving's own packages.
# Holds on every platform from Python {python} on. Commit this file; do not edit it.
# inputs: {inputs}
"""
INPUTS = re.compile(r"^# inputs: (?P<inputs>sha256:[0-9a-f]{64})$", re.MULTILINE)
INCLUDED = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)(?:\s+|=)(?P<path>\S+)", re.MULTILINE)
INDEX = re.compile(r"^\s*(?:-i|--index-url|--extra-index-url|-f|--find-links)(?:\s+|=)\S+", re.MULTILINE)
PIN = re.compile(r"^(?P<pin>[A-Za-z0-9][A-Za-z0-9._-]*==[^\s;\\]+(?:\s*;[^\\\n]*)?)", re.MULTILINE)
NAME = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """A lock file's text. *digest* is of what is pinned, so a comment changes nothing."""

    path: Path
    text: str

    @property
    def digest(self) -> str:
        pins = [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]
        return "sha256:" + hashlib.sha256("\n".join(pins).encode()).hexdigest()

    @property
    def names(self) -> frozenset[str]:
        """The packages in it, normalised."""
        return frozenset(_normalised(match["name"]) for match in NAME.finditer(self.text))

    @property
    def pins(self) -> list[str]:
        """Return ``name==version``, with its marker, of every package."""
        return [match["pin"].strip() for match in PIN.finditer(self.text)]

    def without(self, name: str) -> Lock:
        """Return the lock without the package *name* (normalised); what only that one needs stays."""
        blocks = re.split(r"^(?=[A-Za-z0-9])", self.text, flags=re.MULTILINE)
        return Lock(self.path, "".join(one for one in blocks if _normalised(one) != name))

    @property
    def inputs(self) -> str | None:
        match = INPUTS.search(self.text)
        return match["inputs"] if match else None


def _normalised(line: str) -> str:
    match = NAME.match(line)
    return re.sub(r"[-_.]+", "-", match["name"]).lower() if match else ""


def current(workspace: Workspace, environ: Mapping[str, str] = os.environ) -> Lock:
    """Return the workspace's lock, made first where it is missing or stale.

    With ``CI=true`` nothing is made: a missing or stale lock is a ``ConfigError``.
    """
    path = _path(workspace)
    found = read(path)
    why = "missing" if found is None else "stale" if found.inputs != inputs(workspace) else None
    if found is not None and why is None:
        return found
    if environ.get("CI", "").lower() in ("true", "1"):
        detail = "" if found is None else f", {workspace.spec.serve.dependencies or 'what serving needs'} was changed"
        raise ConfigError(f"{path}: {why}{detail}; run `stageway lock` and commit the file")
    output.note(f"{path.name} is {why}: resolving")
    resolve(workspace)
    made = read(path)
    if made is None:
        raise ConfigError(f"{path}: was removed while it was made; run `stageway lock`")
    return made


def read(path: Path) -> Lock | None:
    """Read a lock file; ``None`` when there is none."""
    try:
        return Lock(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; run `stageway lock`") from error


def resolve(workspace: Workspace, *, upgrade: bool = False) -> Path:
    """Resolve the dependencies into the lock and return its path. Pins that still fit stay, unless *upgrade*.

    Raises ``PackagingError`` in the resolver's own words when the requirements cannot be met together.
    """
    path, wanted = _path(workspace), inputs(workspace)
    source = workspace.spec.serve.dependencies
    with (
        caches.complaints(workspace.cache),
        caches.exclusive(workspace.cache, "lock-" + hashlib.sha256(str(path).encode()).hexdigest()),
        caches.scratch(workspace.cache) as place,
    ):
        fresh = place / "stageway.lock"
        if path.is_file() and not upgrade:
            shutil.copyfile(path, fresh)
        try:
            _resolve(workspace, source, fresh)
        except uv_tool.FullDiskError as error:
            raise caches.full(workspace.cache) from error
        header = HEADER.format(source=source or "nothing else", python=_python(workspace), inputs=wanted)
        pins = fresh.read_text(encoding="utf-8")
    _put(path, header + pins)
    return path


def _resolve(workspace: Workspace, source: str | None, fresh: Path) -> None:
    """Write the resolved lock. What only makes a service faster is left out where it does not fit with the rest."""

    def compiled(own: tuple[str, ...]) -> None:
        uv_tool.run(
            [*_compile(workspace, source), "--output-file", str(fresh)],
            cwd=workspace.root,
            stdin="".join(line + "\n" for line in own),
            failing=f"{source}: cannot be resolved together with serving's own packages" if source else fresh.name,
        )

    needed, more = _serving(workspace), _accelerating(workspace)
    try:
        compiled((*needed, *more))
    except PackagingError:
        if not more:
            raise
        compiled(needed)
        output.note(f"onnxruntime does not fit with {source}: the models are served as they are")


def _serving(workspace: Workspace) -> tuple[str, ...]:
    """Return what serving itself needs, and what the stages ask of it beyond that."""
    stages = workspace.spec.stages.values()
    asked = {
        "auth": any(stage.auth is not None for stage in stages),
        "collect": any(stage.collect is not None for stage in stages),
        "telemetry": any(stage.telemetry for stage in stages),
    }
    return (*serving.REQUIREMENTS, *(one for key, true in asked.items() if true for one in serving.FEATURES[key]))


def _accelerating(workspace: Workspace) -> tuple[str, ...]:
    """Return the packages for a verified ONNX form, where the models of *workspace* may get one."""
    serve = workspace.spec.serve
    if serve.entry_script is not None or serve.accelerate == "off" or serve.dependencies is None:
        return ()
    texts = _requirements(workspace, serve.dependencies).values()
    return ACCELERATING if any(ACCELERABLE.search(text) for text in texts) else ()


def _compile(workspace: Workspace, source: str | None) -> list[str]:
    return [
        "pip",
        "compile",
        *([source] if source else []),
        "-",
        "--universal",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--only-binary=:all:",
        f"--python-version={_python(workspace)}",
        f"--python={machine.interpreter()}",
    ]


def _put(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        fresh.write_text(text, encoding="utf-8", newline="\n")
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    finally:
        fresh.unlink(missing_ok=True)


def inputs(workspace: Workspace) -> str:
    """Return the digest of what a lock is resolved from."""
    source = workspace.spec.serve.dependencies
    files = _requirements(workspace, source) if source is not None else {}
    own = [*_serving(workspace), *_accelerating(workspace)]
    return digest({"files": files, "serving": own, "python": _python(workspace)})


def _requirements(workspace: Workspace, source: str) -> dict[str, str]:
    """Read the requirements file and the files that it includes, by their path from the project."""
    where = f"{workspace.file}: serve.dependencies"
    if source.endswith((".yml", ".yaml", ".toml")):
        raise ConfigError(f"{where}: {source!r} is not a requirements file; write one such as requirements.txt")
    found: dict[str, str] = {}
    waiting = [workspace.root / source]
    while waiting:
        path = waiting.pop()
        name = os.path.relpath(path, workspace.root)
        if name in found:
            continue
        try:
            found[name] = "\n".join(path.read_text(encoding="utf-8").splitlines())
        except FileNotFoundError as error:
            raise ConfigError(f"{where}: no such file {name!r}; write one package a line there") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: {name!r} cannot be read: {error}") from error
        included = [match["path"] for match in INCLUDED.finditer(found[name])]
        waiting += [path.parent / one for one in included if "://" not in one]
    return found


def index_options(workspace: Workspace) -> list[str]:
    """Return the lines of the requirements files that say where packages are; the lock does not hold them."""
    source = workspace.spec.serve.dependencies
    files = _requirements(workspace, source) if source is not None else {}
    return [match[0].strip() for text in files.values() for match in INDEX.finditer(text)]


def _path(workspace: Workspace) -> Path:
    return workspace.root / workspace.spec.serve.lock


def _python(workspace: Workspace) -> str:
    return workspace.spec.serve.python or LOWEST_PYTHON
