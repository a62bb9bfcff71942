"""A Python that has exactly the packages of the service, for `stageway exec`: training and serving agree."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from stageway.bundle import Launch, machine
from stageway.config.workspace import Workspace
from stageway.images import cache as caches
from stageway.images.build import dependencies
from stageway.images.layers import LayerStore


def environment(workspace: Workspace) -> Launch:
    """Return an interpreter with the packages of the dependency layer and none else.

    *env* is to be laid over the caller's own environment: what is run in it is the user's own command.
    """
    layer = dependencies(workspace)
    name = layer.digest.removeprefix("sha256:")
    with caches.complaints(workspace.cache):
        place = _virtual(workspace.cache, name, LayerStore(workspace.cache).content(layer))
    env = {
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONHOME": "",
        "PYTHONPATH": "",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPYCACHEPREFIX": str(workspace.cache / "pyc" / name),
    }
    return Launch((str(place / "bin" / "python"),), env, workspace.root)


def _virtual(cache: Path, name: str, packages: Path) -> Path:
    """Return a virtual environment that points at *packages*; it holds nothing itself, so making it takes no time."""
    base = Path(machine.interpreter())
    place = cache / "python" / f"{name[:16]}-{hashlib.sha256(str(base).encode()).hexdigest()[:8]}"
    if (place / "pyvenv.cfg").is_file():
        return place
    with caches.scratch(cache) as scratch:
        made = scratch / "python"
        (made / "bin").mkdir(parents=True)
        version = machine.python_version()
        for command in ("python", "python3", f"python{version}"):
            (made / "bin" / command).symlink_to(base)
        site = made / "lib" / f"python{version}" / "site-packages"
        site.mkdir(parents=True)
        (site / "stageway.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n", encoding="utf-8")
        settings = f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
        (made / "pyvenv.cfg").write_text(settings, encoding="utf-8")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.rename(place)
        except OSError:
            if not (place / "pyvenv.cfg").is_file():
                raise
    return place
