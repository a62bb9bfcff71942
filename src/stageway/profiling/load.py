"""Send samples to a started service and write down how long each reply took."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from stageway.bundle.trial import Trial
from stageway.errors import RefusedError
from stageway.samples import Sample

PAUSE = 0.01


@dataclass
class Seen:
    """What clients saw: seconds of each good reply, and how many were not good (with one of them in words)."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    elapsed: float = 0.0
    problem: str = ""

    @property
    def requests(self) -> int:
        return len(self.seconds) + self.errors

    def add(self, other: Seen) -> None:
        self.seconds += other.seconds
        self.errors += other.errors
        self.problem = self.problem or other.problem

    def percentile_ms(self, share: float) -> float | None:
        """Return the time within which *share* of the good replies came, or ``None`` when there was none."""
        if not self.seconds:
            return None
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def send(
    trial: Trial, samples: Sequence[Sample], *, until: float, clients: int = 1, at_most: int | None = None
) -> Seen:
    """Score *samples* in turn with *clients* kept connections until the monotonic time *until*, or *at_most* each.

    A request that is not answered by then is cut off, and counts neither way. Raises ``RefusedError`` when the service
    ends meanwhile.
    """
    seen = [Seen() for _ in range(clients)]
    threads = [
        threading.Thread(target=_client, args=(trial, _from(samples, index), until, at_most, one), daemon=True)
        for index, one in enumerate(seen)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Seen(elapsed=time.monotonic() - start)
    for one in seen:
        total.add(one)
    ended = trial.process.poll()
    if ended is not None:
        raise RefusedError(f"the service ended while it was measured, exit code {ended}", detail=trial.log_tail())
    return total


def _from(samples: Sequence[Sample], index: int) -> Sequence[Sample]:
    """Let every client begin with another sample."""
    start = index % len(samples)
    return [*samples[start:], *samples[:start]]


def _client(trial: Trial, samples: Sequence[Sample], until: float, at_most: int | None, seen: Seen) -> None:
    turns = itertools.cycle(samples) if at_most is None else itertools.islice(itertools.cycle(samples), at_most)
    with closing(trial.connect()) as connection:
        for sample in turns:
            left = until - time.monotonic()
            if left <= 0:
                return
            connection.patience(left)
            try:
                reply = connection.ask("POST", "/score", sample.request)
            except TimeoutError:
                return
            except (OSError, http.client.HTTPException) as error:
                seen.errors += 1
                seen.problem = seen.problem or f"{sample.name}: {error or type(error).__name__}"
                if trial.process.poll() is not None:
                    return
                time.sleep(PAUSE)
                continue
            if reply.status == 200:
                seen.seconds.append(reply.seconds)
            else:
                seen.errors += 1
                said = reply.body[:200].decode(errors="replace")
                seen.problem = seen.problem or f"{sample.name}: status {reply.status}: {said}"
