"""One worker: claims its slot, loads the model, and tells the parent process how that went.

``load`` runs in a process of its own, before its event loop; what it returns is served.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing import connection
from pathlib import Path
from typing import Any

from stageway.contract import Contract
from stageway.serving.layers import add_layers
from stageway.serving.settings import Settings

STARTING, READY, FAILED = "starting", "ready", "failed"


def load(settings: Settings, parent: Any) -> Any:
    """Return the application of this worker; a failure is sent to *parent*, which then ends the service."""
    # The parent's handlers came along when this process was forked from it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    parent.send((STARTING, os.getpid(), ""))
    _end_with_parent(settings.stop_timeout)
    try:
        return _app(settings, parent)
    except BaseException as error:
        parent.send((FAILED, os.getpid(), _sentence(error)))
        # Leaving would look like a crash; the parent has the sentence and ends this process.
        time.sleep(60)
        os._exit(1)


def _app(settings: Settings, parent: Any) -> Any:
    add_layers()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    level = os.environ.get("AZUREML_LOG_LEVEL", "INFO").upper()
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(level if isinstance(logging.getLevelName(level), int) else "INFO")

    from stageway.serving import frameworks, v1, v2
    from stageway.serving.app import App
    from stageway.serving.control import ControlFile
    from stageway.serving.entry import EntryScript
    from stageway.serving.lane import Lane
    from stageway.serving.scorer import Scorer

    control = ControlFile.open(settings.control)
    control.claim()
    framework = settings.framework
    scorer: Scorer = frameworks.load(settings) if framework else EntryScript(Path(settings.entry_script))
    if settings.contract and scorer.contract.source != "decorators":
        scorer.contract = Contract.from_json(json.loads(Path(settings.contract).read_text()))
    # A script's rows are independent only if its author says so.
    joins = settings.batching == "on" or (settings.batching == "auto" and bool(framework))
    lane = Lane(settings, scorer, joins=joins)
    lane.call(scorer.start)
    routes = {**v1.routes(settings, scorer, control), **v2.routes(settings, scorer, control)}
    app = App(settings, lane, control, routes)
    app.on_serving = lambda: parent.send((READY, os.getpid(), ""))
    return app


def _sentence(error: BaseException) -> str:
    from stageway.errors import StagewayError
    from stageway.serving.scorer import log_traceback, said

    if isinstance(error, StagewayError):
        return error.message
    if isinstance(error, ModuleNotFoundError):
        return "the package {!r} is missing from the layers of this release".format(error.name)
    log_traceback(error)
    return said(error)


def _end_with_parent(patience: int) -> None:
    """Stop when the parent process is gone, so that no worker outlives its service."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
