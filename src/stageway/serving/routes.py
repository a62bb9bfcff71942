"""What a service answers to which path: each face of the server (v1, Open Inference Protocol, metrics) is a table."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

from stageway.serving.replies import Reply
from stageway.serving.scorer import Call, Work


class Route(NamedTuple):
    """One path: *page* answers at once on the event loop (its argument is granian's scope), *read* goes to the model.

    A *guarded* route asks for a key or a token where the service has any. *counted* ones are in the metrics. Of a *raw*
    one ``OPTIONS`` goes to the model as well.
    """

    methods: "tuple[str, ...]"
    page: "Optional[Callable[[Any], Reply]]" = None
    read: "Optional[Callable[[Call], Work]]" = None
    guarded: bool = False
    counted: bool = True
    raw: bool = False
