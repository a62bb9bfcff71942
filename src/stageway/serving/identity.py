"""Which request is it: the ids that clients send, and ours where they send none (v1's headers)."""

from __future__ import annotations

import itertools
import os
import uuid
from typing import Any, Iterator, Optional

from stageway.serving import replies
from stageway.serving.replies import Reply

REQUEST_ID = "x-request-id"
MS_REQUEST_ID = "x-ms-request-id"
CLIENT_REQUEST_ID = "x-ms-client-request-id"
TRACE_ID = "traceid"
LONGEST_ID = 100


def of(headers: Any) -> "tuple[list[tuple[str, str]], Optional[Reply]]":
    """Return the headers that name this request, and a refusal when a name is too long."""
    get = headers.get
    given, client, ms, trace = get(REQUEST_ID), get(CLIENT_REQUEST_ID), get(MS_REQUEST_ID), get(TRACE_ID)
    if given is client is ms is trace is None:
        own = next(_own)
        return [(REQUEST_ID, own), (MS_REQUEST_ID, own)], None
    for name, value in ((REQUEST_ID, given), (MS_REQUEST_ID, ms), (CLIENT_REQUEST_ID, client)):
        if value is not None and len(value) > LONGEST_ID:
            sentence = "the header {} is longer than {} characters".format(name, LONGEST_ID)
            return [], replies.message(431, sentence)
    own = given or next(_own)
    found = [(REQUEST_ID, own), (MS_REQUEST_ID, ms or client or own)]
    if client or ms:
        found.append((CLIENT_REQUEST_ID, client or ms))
    if trace:
        found.append(("TraceId", trace))
    return found, None


def ids() -> "Iterator[str]":
    """Yield unique ids in the form of random UUIDs, of which the first 74 random bits stay and the rest counts on."""
    first = str(uuid.uuid4())
    start, count = first[:24], int(first[24:], 16)
    return (start + "%012x" % (number & 0xFFFFFFFFFFFF) for number in itertools.count(count))


_own = ids()


def _begin_again() -> None:
    global _own
    _own = ids()


# A worker that was forked would otherwise go on with the ids of its parent.
os.register_at_fork(after_in_child=_begin_again)
