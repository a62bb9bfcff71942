"""What SIGHUP means: the terminal that the service was started from has gone away, or somebody asks for a reload."""

from __future__ import annotations

import os
import signal
from typing import Any


class Terminal:
    """The controlling terminal at the start of this process, if it had one and is not to outlive it (``nohup``)."""

    def __init__(self) -> None:
        self.signalled = False
        self._had = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _there()

    def remember(self) -> None:
        """Note in ``signalled`` that SIGHUP came, rather than end by it, until the crew has a better answer."""
        signal.signal(signal.SIGHUP, self._remember)

    def _remember(self, number: int, frame: Any) -> None:
        self.signalled = True

    def hung_up(self) -> bool:
        """Whether the terminal is gone; without one, the answer is always no."""
        return self._had and not _there()


def _there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
