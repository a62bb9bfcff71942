"""The face of Azure ML v1: ``/`` and ``/score``, and beside them what probes and the engine ask for."""

from __future__ import annotations

from typing import Any

import orjson

from stageway.serving import replies
from stageway.serving.control import ControlFile
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.scorer import Scorer
from stageway.serving.settings import Settings

READING = ("GET", "HEAD")
SCORING = ("POST", "GET", "OPTIONS")
RAW = (*SCORING, "HEAD")
HEALTHY = Reply(200, b"Healthy", replies.TEXT)


def routes(settings: Settings, scorer: Scorer, control: ControlFile) -> "dict[str, Route]":
    """Return the table of this face."""
    contract = Reply(200, orjson.dumps(scorer.contract.to_json()))

    raw = bool(getattr(scorer, "raw", False))

    def health(scope: Any) -> Reply:
        return HEALTHY if control.ready else replies.message(503, "the service is starting")

    return {
        "/": Route(READING, page=health, counted=False),
        "/score": Route(RAW if raw else SCORING, read=scorer.read, guarded=True, raw=raw),
        "/contract.json": Route(READING, page=lambda scope: contract),
    }
