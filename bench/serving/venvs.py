"""Install the peers, each into an environment of its own, so that nothing of them gets into the project's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.serving.peers import OVERRIDES, VENVS

PATIENCE = 900


class NotInstalledError(Exception):
    """An environment cannot be made; the message says why in one line."""


def program(venvs: Path, name: str) -> Path:
    """Return the folder of the programs of the environment *name*, making it first where it is not there.

    An environment is kept until what it needs is another.
    """
    folder = venvs / name
    wanted = "\n".join([sys.version, *VENVS[name], *OVERRIDES.get(name, ())])
    mark = folder / "made-for"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if not (mark.is_file() and mark.read_text() == digest):
        print(f"installing {name} ...", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder, VENVS[name], OVERRIDES.get(name, ()))
        mark.write_text(digest)
    return folder / "bin"


def versions(bin: Path) -> dict[str, str]:
    """Return the distributions in an environment with their versions."""
    lines = _uv("pip", "freeze", "--python", str(bin / "python")).splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def _install(folder: Path, requirements: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--python", sys.executable, str(folder))
    install = ["pip", "install", "--python", str(folder / "bin" / "python"), *requirements]
    try:
        _uv(*install)
    except NotInstalledError:
        if not overrides:
            raise
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(overrides) + "\n")
            file.flush()
            _uv(*install, "--overrides", file.name)


def _uv(*arguments: str) -> str:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        sys.exit("uv is not here; `pip install uv` would supply it")
    try:
        done = subprocess.run([uv, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"uv took longer than {PATIENCE} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NotInstalledError(" ".join(lines[-4:])[:300])
    return done.stdout
