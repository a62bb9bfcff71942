"""Unpack what a lock pins into a folder, so that the folder holds nothing of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from stageway.bundle import machine
from stageway.images import cache as caches
from stageway.images import uv_tool
from stageway.images.lock import Lock


def install(lock: Lock, options: list[str], content: Path, cache: Path, what: str = "") -> None:
    """Unpack the lock's wheels into *content*; hashes are verified. *what* is said to fail in place of the lock.

    Copied, never linked: uv's own cache is shared with other programs.
    """
    try:
        uv_tool.run(
            [
                *("pip", "install", "--requirements", "-", "--target", str(content)),
                *("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile-bytecode"),
                *("--link-mode=copy", f"--python={machine.interpreter()}"),
            ],
            cwd=lock.path.parent,
            stdin="".join(line + "\n" for line in options) + lock.text,
            failing=f"{what or lock.path}: cannot be installed for Python {machine.python_version()} "
            f"on {machine.platform_name()}",
        )
    except uv_tool.FullDiskError as error:
        raise caches.full(cache) from error
    _without_interpreter(content)


def _without_interpreter(content: Path) -> None:
    """Remove what holds this machine's paths: uv's lock, and commands that start with an interpreter's address."""
    (content / ".lock").unlink(missing_ok=True)
    gone: set[str] = set()
    for path in (content / "bin").glob("*"):
        with path.open("rb") as file:
            if file.read(2) == b"#!":
                gone.add(f"bin/{path.name}")
    for name in gone:
        (content / name).unlink()
    if not any((content / "bin").glob("*")):
        shutil.rmtree(content / "bin", ignore_errors=True)
    for record in content.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.split(",")[0] not in gone]
        if len(kept) != len(lines):
            record.write_text("".join(kept), encoding="utf-8")
