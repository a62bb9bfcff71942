"""One worker: claims its slot, loads the model, and tells the parent process how that went.

``load`` runs in a process of its own, before its event loop; what it returns is served.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stageway.contract import Contract
from stageway.serving.duty import Duty
from stageway.serving.layers import add_layers
from stageway.serving.settings import Settings


def load(settings: Settings, reports: Any, orders: Any, address: object) -> Any:
    """Return the application of this worker; a failure is reported to the parent, which decides what it means."""
    duty = Duty(settings, reports, orders, address)
    duty.begin()
    try:
        return _app(settings, duty)
    except BaseException as error:
        return duty.failed(_sentence(error))


def _app(settings: Settings, duty: Duty) -> Any:
    add_layers()
    from stageway.serving import logs

    logs.start(settings)

    from stageway.serving import docs, frameworks, openapi, probes, standins, v1, v2
    from stageway.serving.acceleration import Accelerated
    from stageway.serving.app import App
    from stageway.serving.auth import Guard
    from stageway.serving.control import ControlFile
    from stageway.serving.cors import Cors
    from stageway.serving.entry import EntryScript
    from stageway.serving.lane import Lane
    from stageway.serving.scorer import Scorer
    from stageway.serving.watching import Watch

    guard = Guard(settings.auth) if settings.auth else None
    control = ControlFile.open(settings.control)
    watch = Watch(settings, control, control.claim())
    framework = settings.framework
    # A script's rows are independent only if its author says so.
    joins = settings.batching == "on" or (settings.batching == "auto" and bool(framework))
    standins.install()
    scorer: Scorer = frameworks.load(settings) if framework else EntryScript(Path(settings.entry_script), joins=joins)
    if settings.accelerated:
        scorer = Accelerated(scorer, Path(settings.accelerated))
    if settings.contract and scorer.contract.source != "decorators":
        scorer.contract = Contract.from_json(json.loads(Path(settings.contract).read_text()))
    lane = Lane(settings, scorer, joins=joins)
    lane.call(scorer.start)
    routes = {**v1.routes(settings, scorer, control), **v2.routes(settings, scorer, control)}
    # What describes the table reads it when it is asked, and then all is in it.
    routes.update({**openapi.routes(settings, scorer, routes), **docs.routes(settings, scorer, routes)})
    routes.update({**watch.routes(scorer, routes), **probes.routes(control, lambda: lane.manned)})
    app = App(settings, lane, control, {**routes, **{settings.prefix + path: routes[path] for path in routes}})
    app.cors = Cors(settings.cors) if settings.cors else None
    app.guard = guard
    app.access = logs.AccessLog(settings) if settings.access_log else None
    if settings.log_format == "json":
        lane.on_scoring = logs.scores
    watch.begin(app, lane)
    lane.on_lost = duty.hangs
    app.on_serving, duty.on_leave, duty.busy = duty.serving, app.leave, lambda: control.busy
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
