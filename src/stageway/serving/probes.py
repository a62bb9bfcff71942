"""What an orchestrator asks: ``/livez``, whether to restart this process, and ``/readyz``, whether to send requests.

Ready is a service of which at least one worker serves and which is not on its way out. A prediction that hangs changes
nothing: it is given up at its limit, and its place taken by the next. A worker with too many of them says that it is
not ready, and is replaced; one that hangs as a whole answers no probe, and is replaced too.
"""

from __future__ import annotations

from typing import Any, Callable

from stageway.serving import replies
from stageway.serving.control import ControlFile
from stageway.serving.replies import Reply
from stageway.serving.routes import Route

READING = ("GET", "HEAD")
ALIVE = Reply(200, b"alive", replies.TEXT)


def routes(control: ControlFile, scores: "Callable[[], bool]") -> "dict[str, Route]":
    """Return the table of the probes, which are open to everybody and not counted.

    *scores* says whether this worker has a thread left that scores.
    """

    def ready(scope: Any) -> Reply:
        if control.draining:
            return replies.message(503, "the service is draining")
        if not scores():
            return replies.message(503, "too many predictions hang; this worker is being replaced")
        # This worker serves, whatever its parent has had time to write down.
        serving = max(control.serving, 1)
        workers = "{} of {} {}".format(serving, control.wanted, "worker" if control.wanted == 1 else "workers")
        if not control.ready:
            return replies.message(503, "the service is starting or stopping, {}".format(workers))
        return Reply(200, "ready, {}".format(workers).encode(), replies.TEXT)

    return {
        "/livez": Route(READING, page=lambda scope: ALIVE, counted=False),
        "/readyz": Route(READING, page=ready, counted=False),
    }
