"""What ``python -m stageway.serving`` does, and how it ends: 0 stopped, 1 cannot serve, 2 wrong use."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Optional, Sequence

from stageway.errors import StagewayError
from stageway.serving import REQUIREMENTS
from stageway.serving.arguments import settings as settings_of
from stageway.serving.control import ControlFile
from stageway.serving.settings import Settings
from stageway.serving.terminal import Terminal


def main(arguments: Optional[Sequence[str]] = None, terminal: Optional[Terminal] = None) -> int:
    """Serve until told to stop; the last line on stderr says why it could not.

    *terminal* is the one that has remembered SIGHUP since the process began.
    """
    settings = settings_of(arguments)
    terminal = terminal or Terminal()
    try:
        if settings.control:
            return _serve(settings, Path(settings.control).absolute(), terminal)
        with tempfile.TemporaryDirectory(prefix="stageway-serving-") as scratch:
            return _serve(settings, Path(scratch, "control"), terminal)
    except StagewayError as error:
        return _cannot_start(settings, error.message)


def _serve(settings: Settings, control: Path, terminal: Terminal) -> int:
    if not control.exists():
        ControlFile.create(control, settings.workers).close()
    try:
        from stageway.serving.server import serve
    except ModuleNotFoundError as error:
        packages = ", ".join(one.partition(";")[0] for one in REQUIREMENTS)
        return _cannot_start(
            settings, "the package {!r} is missing; the layers have to hold {}".format(error.name, packages)
        )
    serve(replace(settings, control=str(control)), terminal)
    return 0


def _cannot_start(settings: Settings, sentence: str) -> int:
    # Not by the module of logs, which needs a package that may be missing.
    if settings.log_format == "json":
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {"time": now, "level": "ERROR", "logger": "stageway.serving", "message": "cannot start: " + sentence}
        print(json.dumps(line), file=sys.stderr, flush=True)
    else:
        print("stageway-serving: cannot start: {}".format(sentence), file=sys.stderr, flush=True)
    return 1
