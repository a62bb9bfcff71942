"""Resolve the templates' stageway.lock anew where what it is made from has changed: `python templates/relock.py`.

With --upgrade every lock gets the newest versions that fit. A test says when a lock is stale.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from stageway import scaffold
from stageway.config.workspace import Workspace
from stageway.images import lock as locks

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    upgrade = parser.parse_args().upgrade
    for template in scaffold.templates():
        with tempfile.TemporaryDirectory() as folder:
            project = scaffold.init("relock", Path(folder) / "relock", template, own_repository=True)
            workspace = Workspace.open(project.folder, environ={})
            path = project.folder / workspace.spec.serve.lock
            found = locks.read(path)
            if not upgrade and found is not None and found.inputs == locks.inputs(workspace):
                print(f"{template}: current")
                continue
            locks.resolve(workspace, upgrade=upgrade)
            shutil.copyfile(path, HERE / template / "project" / path.name)
            print(f"{template}: made anew")


if __name__ == "__main__":
    main()
