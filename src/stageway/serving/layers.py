"""Put the layers of a release on the import path, since ``-S`` keeps the machine's own packages away."""

from __future__ import annotations

import os
import site
from pathlib import Path

VARIABLE = "STAGEWAY_SITE"


def add_layers() -> None:
    """Add every folder of ``STAGEWAY_SITE`` as a site folder (its ``.pth`` files count); missing ones are left out."""
    for folder in os.environ.get(VARIABLE, "").split(os.pathsep):
        if folder and Path(folder).is_dir():
            site.addsitedir(folder)
