"""Calls from web pages of other origins, allowed by setting; a script's own headers for this go before ours.

Credentials (cookies) are never allowed: keys and tokens come in a header, which pages have to send themselves.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

from stageway.serving import replies
from stageway.serving.replies import Reply

ANY = "*"
METHODS = "GET, POST"
REMEMBERED = "600"
"""Seconds for which a browser need not ask again."""
ALLOW_ORIGIN = "access-control-allow-origin"


class Cors:
    """The origins that may call; ``*`` is any."""

    def __init__(self, origins: "Sequence[str]") -> None:
        self._any = ANY in origins
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows(self, origin: str) -> bool:
        return self._any or origin.lower() in self._origins

    def headers(self, origin: Optional[str], given: "Sequence[tuple[str, str]]" = ()) -> "list[tuple[str, str]]":
        """Return what a reply to *origin* has beside the headers *given*; caches learn that origins differ."""
        if any(name.lower() == ALLOW_ORIGIN for name, _ in given):
            return []
        found = [] if self._any else [("vary", "Origin")]
        if origin and self.allows(origin):
            found.append((ALLOW_ORIGIN, ANY if self._any else origin))
        return found

    def preflight(self, scope: Any) -> Optional[Reply]:
        """Answer a browser that asks before it calls; ``None`` for any other request, and for origins not allowed."""
        asked = scope.headers
        origin = asked.get("origin")
        if scope.method != "OPTIONS" or not origin or not asked.get("access-control-request-method"):
            return None
        if not self.allows(origin):
            return None
        found = [("access-control-allow-methods", METHODS), ("access-control-max-age", REMEMBERED)]
        wanted = asked.get("access-control-request-headers")
        if wanted:
            found.append(("access-control-allow-headers", wanted))
        return Reply(200, b"", replies.TEXT, found)
