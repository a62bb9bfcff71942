"""What an orchestrator asks: ``/livez``, whether to restart this process, and ``/readyz``, whether to send requests.

Ready is a service of which at least one worker serves and which is not on its way out. What predictions do is not
asked: one that hangs is given up at its limit, and its place taken by the next; a worker that hangs as a whole answers
no probe, and its parent replaces it.
"""

from __future__ import annotations

from typing import Any

from stageway.serving import replies
from stageway.serving.control import ControlFile
from stageway.serving.replies import Reply
from stageway.serving.routes import Route

READING = ("GET", "HEAD")
ALIVE = Reply(200, b"alive", replies.TEXT)


def routes(control: ControlFile) -> "dict[str, Route]":
    """Return the table of the probes, which are open to everybody and not counted."""

    def ready(scope: Any) -> Reply:
        if control.draining:
            return replies.message(503, "the service is draining")
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
