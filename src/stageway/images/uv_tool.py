"""The one place that runs uv: its command line, its environment, and what it says when it fails."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from stageway.errors import ConfigError, PackagingError, StagewayError, TryAgainError

AWAY = re.compile(
    r"error sending request|dns error|connection (refused|reset|closed)|timed out|client error \(connect\)|"
    r"HTTP status (client error \(429|server error)",
    re.IGNORECASE,
)
CAUSE = re.compile(r"^\s*(×|error:|cause:|[├╰]─▶|Caused by:)")
DRAWING = re.compile(r"^[\s×╰├│─▶]+")
FULL = "No space left on device"
NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")


class FullDiskError(Exception):
    """uv ran out of disk; the caller knows which disk."""


def run(arguments: list[str], *, cwd: Path, stdin: str = "", failing: str) -> None:
    """Run uv with *arguments*. A failure is one sentence that starts with *failing* and goes on in uv's words.

    ``TryAgainError`` when the package index is away, ``PackagingError`` otherwise.
    """
    command = [_binary(), *arguments, "--color", "never", "--no-progress", "--quiet"]
    done = subprocess.run(
        command, cwd=cwd, input=stdin, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise _complaint(failing, done.stderr)


def _binary() -> str:
    import uv

    try:
        return uv.find_uv_bin()
    except FileNotFoundError as error:
        raise ConfigError("uv is not installed beside stageway; `pip install uv`") from error


def _environment() -> dict[str, str]:
    """The caller's own (proxies, certificates, its index), with pip's index setting where uv has none."""
    environ = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    if "UV_INDEX_URL" not in environ and "UV_DEFAULT_INDEX" not in environ and environ.get("PIP_INDEX_URL"):
        environ["UV_DEFAULT_INDEX"] = environ["PIP_INDEX_URL"]
    return environ


def _complaint(failing: str, stderr: str) -> StagewayError | FullDiskError:
    if FULL in stderr:
        return FullDiskError(stderr)
    if AWAY.search(stderr):
        return TryAgainError(f"{failing}: the package index does not answer", after=30, detail=stderr.strip())
    return PackagingError(f"{failing}: {sentence(stderr)}", detail=stderr.strip())


def sentence(stderr: str) -> str:
    """Return what uv says went wrong as one line, without its drawing: the innermost cause."""
    lines = stderr.splitlines()
    start = max((at for at, line in enumerate(lines) if CAUSE.match(line)), default=0)
    found: list[str] = []
    for line in (DRAWING.sub("", line).strip() for line in lines[start:]):
        if line.startswith("hint:") or not line:
            break
        found.append(line)
    said = re.sub(r"^(error|cause|Caused by): ", "", " ".join(found)).rstrip(".")
    return said[:1].lower() + said[1:] if said[:2] != said[:2].upper() else said or "uv failed without a word"
