"""What can go wrong, by what the caller may do about it.

The lowest floor: imported by the engine and by the serving layer, so it needs nothing and runs on Python 3.9.
A ``StagewayError`` is shown as one line (file, key, value, way out) and never as a traceback; everything else that
escapes is our bug. The *type* decides what happens next: the runner retries ``TryAgainError`` and nothing else.
"""

from __future__ import annotations


class StagewayError(Exception):
    """Something a person can put right.

    ``detail`` is what belongs under the line, such as the last lines of a log.
    """

    exit_code = 2

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class ConfigError(StagewayError):
    """A file, a key or an argument is wrong; the message names it, its value and the way out."""


class RegistryError(StagewayError):
    """The registry answered, and the answer is no."""


class PackagingError(StagewayError):
    """A release cannot be built from what was given."""


class TargetError(StagewayError):
    """A target answered, and the answer is no."""


class StoreError(StagewayError):
    """The database is not usable as it is."""


class RefusedError(StagewayError):
    """A gate or a test said no. Trying again without a change gives the same answer."""

    exit_code = 1


class TryAgainError(StagewayError):
    """Somebody is away; the same call may work after *after* seconds."""

    exit_code = 3

    def __init__(self, message: str, *, after: float = 5.0, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.after = after


class WaitingError(StagewayError):
    """A person (or more evidence) is needed before this can go on."""

    exit_code = 4


EXIT_BUG = 70
EXIT_INTERRUPTED = 130
