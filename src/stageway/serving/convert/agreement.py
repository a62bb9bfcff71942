"""Whether two models give the same answers, and how far apart they are where these are numbers.

Numbers agree when ``|one - other| <= tolerance * max(|one|, usual)``, *usual* being the median size of the original's
finite answers (1 for probabilities): a difference is judged by what the model usually says. NaN agrees with NaN, and
infinity with the same infinity. Classes agree when they are equal. A row is *too close to call* when the original's two
best probabilities (else decision values, else distances to centres) differ by at most twice the tolerance; there the
class may differ, and how often it does is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DOUBLE, SINGLE = 1e-9, 1e-5
"""Tolerances of graphs that answer in 64 and in 32 bits."""


@dataclass
class Agreement:
    """What was found of one method: *wrong* when a row does not agree."""

    compared: int = 0
    largest: float = 0.0
    close: int = 0
    differ_close: int = 0
    wrong: bool = False

    def add(self, other: "Agreement") -> None:
        self.compared += other.compared
        self.largest = max(self.largest, other.largest)
        self.close += other.close
        self.differ_close += other.differ_close
        self.wrong = self.wrong or other.wrong


def compare(original: Any, other: Any, tolerance: float, usual: float, close: Any = None) -> Agreement:
    """Compare the answers to the same rows, the first axis; *close* says which rows are too close to call."""
    import numpy as np

    if original.shape != other.shape:
        return Agreement(len(original), float("inf"), wrong=True)
    if original.dtype.kind == "f":
        differences = _differences(original, other, usual).reshape(len(original), -1).max(axis=1)
        agree = bool((differences <= tolerance).all())
        largest = float(differences.max()) if len(differences) else 0.0
        return Agreement(len(original), largest, wrong=not agree)
    differ = (original != other).reshape(len(original), -1).any(axis=1)
    close = np.zeros(len(original), dtype=bool) if close is None else close
    wrong = bool((differ & ~close).any())
    return Agreement(len(original), 0.0, int(close.sum()), int((differ & close).sum()), wrong)


def usual_size(answers: Any) -> float:
    """Return the median size of the finite *answers* that are not 0, or 1 where there are none."""
    import numpy as np

    sizes = np.abs(answers[np.isfinite(answers)]) if answers.dtype.kind == "f" else np.zeros(0)
    sizes = sizes[sizes > 0]
    return float(np.median(sizes)) if len(sizes) else 1.0


def too_close(scores: Any, tolerance: float, *, distances: bool = False) -> Any:
    """Return which rows the model itself can hardly tell: see above. *distances* are the smaller the better."""
    import numpy as np

    if scores.ndim == 1:
        return np.abs(scores) <= tolerance * usual_size(scores)
    ordered = np.sort(-scores if distances else scores, axis=1)
    size = np.maximum(np.abs(ordered[:, -1]), 0.0 if distances else 1.0)
    return ordered[:, -1] - ordered[:, -2] <= 2 * tolerance * size


def _differences(one: Any, other: Any, usual: float) -> Any:
    """Return relative differences; 0 where both are NaN or the same infinity, infinity where only one is."""
    import numpy as np

    with np.errstate(all="ignore"):
        found = np.abs(one - other) / np.maximum(np.abs(one), usual)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.where(same, 0.0, np.where(np.isfinite(found), found, np.inf))
