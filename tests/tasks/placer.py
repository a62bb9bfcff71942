"""Run one task in a process of its own and die by SIGKILL at one call: ``ROOT DOSSIER TASK STAGE CALL WHEN``."""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from stageway import plugins
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.store.stages import Stages


def main(root: str, dossier: str, task: str, stage: str, call: str, when: str) -> None:
    owner = {
        "apply": plugins.load("target", "local"),
        "set_tags": plugins.load("registry", "mlflow"),
        "set_alias": plugins.load("registry", "mlflow"),
        "record": Stages,
    }[call]
    inner = getattr(owner, call)

    @functools.wraps(inner)
    def dying(*args: Any, **kwargs: Any) -> None:
        if when == "after":
            inner(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, call, dying)
    name = "to" if task == "promote" else "stage"
    plugins.load("task", task)(Dossier.read(Path(dossier)), Workspace.open(Path(root)), **{name: stage})


if __name__ == "__main__":
    main(*sys.argv[1:])
