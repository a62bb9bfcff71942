"""Where the catalog (tasks, pipelines, triggers, templates) is: beside the package in a wheel, else the checkout."""

from __future__ import annotations

from pathlib import Path

from stageway.errors import StagewayError


def root() -> Path:
    """Return the folder that holds ``tasks/`` and ``templates/``."""
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "templates").is_dir():
        return checkout
    if (package / "_catalog").is_dir():
        return package / "_catalog"
    raise StagewayError(f"the catalog is missing beside {package}; reinstall stageway")
