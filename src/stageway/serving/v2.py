"""The face of the Open Inference Protocol, version 2, over HTTP: for the clients of KServe and Triton."""

from __future__ import annotations

import re
from typing import Any, Optional

import orjson

from stageway.serving import replies, v2_wire
from stageway.serving.control import ControlFile
from stageway.serving.replies import BadRequestError, Reply
from stageway.serving.routes import Route
from stageway.serving.scorer import Call, Scorer, Signature, Tensor, Work, log_traceback
from stageway.serving.settings import Settings
from stageway.serving.v2_wire import Asked

ROOT = "/v2"
READING = ("GET", "HEAD")
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "python"


def routes(settings: Settings, scorer: Scorer, control: ControlFile) -> "dict[str, Route]":
    """Return the table of this face; the model is there with and without its version."""
    model = identity(settings)

    def live(scope: Any) -> Reply:
        return _said({"live": True})

    def ready(scope: Any) -> Reply:
        return _said({"ready": control.ready}, 200 if control.ready else 503)

    def server(scope: Any) -> Reply:
        name, version = settings.service_name, settings.service_version
        return _said({"name": name, "version": version, "extensions": list(EXTENSIONS)})

    def described(scope: Any) -> Reply:
        return _said(metadata(model, scorer.signature))

    def infer(call: Call) -> Work:
        signature = scorer.signature
        if signature is None:
            return scorer.take({}, ())
        asked = v2_wire.decode(call.body, call.headers(), settings.max_body)
        outputs = _outputs(asked, signature)
        work = scorer.take(asked.tensors, outputs)

        def write(result: Any) -> Reply:
            try:
                given = scorer.give(result, outputs)
            except (TypeError, ValueError) as error:
                log_traceback(error)
                sentence = "the model's result is not what it declares; the log of the service says more"
                reply = replies.message(500, sentence)
                reply.failed = True
                return reply
            return v2_wire.encode(asked, model, {name: given[name] for name in asked.outputs or given})

        return Work(work.data, write, work.key, work.rows)

    found = {
        ROOT: Route(READING, page=server),
        ROOT + "/health/live": Route(READING, page=live, counted=False),
        ROOT + "/health/ready": Route(READING, page=ready, counted=False),
    }
    for path in paths(model):
        found[path] = Route(READING, page=described)
        found[path + "/ready"] = Route(READING, page=ready, counted=False)
        found[path + "/infer"] = Route(("POST",), read=infer, guarded=True)
    return found


def identity(settings: Settings) -> "tuple[str, str]":
    """Return the name and the version that clients ask for: the model's, else the service's name and ``1``."""
    name, _, version = settings.model.rpartition(":")
    if not name:
        name, version = settings.model, ""
    return name or re.sub(r"[^\w.-]+", "-", settings.service_name).strip("-") or "model", version or "1"


def paths(model: "tuple[str, str]") -> "tuple[str, str]":
    """Return where a model is, as the server sees it: names are unquoted there."""
    path = "{}/models/{}".format(ROOT, model[0])
    return path, "{}/versions/{}".format(path, model[1])


def missing(path: str, model: "tuple[str, str]") -> str:
    """Say that *path* is not there, and which model is."""
    return "there is no {}; the model here is {!r}, version {!r}: {}".format(path, *model, paths(model)[0])


def metadata(model: "tuple[str, str]", signature: Optional[Signature]) -> "dict[str, Any]":
    """Return a model's description; one that declares no tensors has no inputs in it."""
    signature = signature or Signature()
    return {
        "name": model[0],
        "versions": [model[1]],
        "platform": signature.platform or PLATFORM,
        "inputs": [_tensor(one) for one in signature.inputs],
        "outputs": [_tensor(one) for one in signature.outputs],
    }


def refused(reply: Reply) -> Reply:
    """Return an error of ours as this protocol says it: in ``error``, whoever found it."""
    document = orjson.loads(reply.body) if reply.body else None
    if isinstance(document, dict) and "message" in document:
        reply.body = orjson.dumps({"error": document["message"]})
    return reply


def _outputs(asked: Asked, signature: Signature) -> "tuple[str, ...]":
    """Return the outputs that are asked for; v1's ``method`` may name one among the parameters instead."""
    names = asked.outputs
    if not names and isinstance(asked.parameters.get("method"), str):
        names = (asked.parameters["method"],)
    known = [one.name for one in signature.outputs]
    for name in names:
        if name not in known:
            listed = ", ".join(known) or "what it does not declare, so ask for none"
            raise BadRequestError("the model has no output {!r}; it gives {}".format(name, listed))
    return names


def _tensor(one: Tensor) -> "dict[str, Any]":
    return {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}


def _said(value: "dict[str, Any]", status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value))
