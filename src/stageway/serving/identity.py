"""Which request is it: the ids that clients send, and ours where they send none (v1's headers)."""

from __future__ import annotations

import uuid
from typing import Any, Optional

from stageway.serving import replies
from stageway.serving.replies import Reply

REQUEST_ID = "x-request-id"
MS_REQUEST_ID = "x-ms-request-id"
CLIENT_REQUEST_ID = "x-ms-client-request-id"
TRACE_ID = "traceid"
LONGEST_ID = 100


def of(headers: Any) -> "tuple[list[tuple[str, str]], Optional[Reply]]":
    """Return the headers that name this request, and a refusal when a name is too long."""
    given = headers.get(REQUEST_ID)
    client = headers.get(CLIENT_REQUEST_ID)
    ms = headers.get(MS_REQUEST_ID)
    trace = headers.get(TRACE_ID)
    for name, value in ((REQUEST_ID, given), (MS_REQUEST_ID, ms), (CLIENT_REQUEST_ID, client)):
        if value is not None and len(value) > LONGEST_ID:
            sentence = "the header {} is longer than {} characters".format(name, LONGEST_ID)
            return [], replies.message(431, sentence)
    own = given or str(uuid.uuid4())
    found = [(REQUEST_ID, own), (MS_REQUEST_ID, ms or client or own)]
    if client or ms:
        found.append((CLIENT_REQUEST_ID, client or ms))
    if trace:
        found.append(("TraceId", trace))
    return found, None
