"""Convert, compare, measure: the first graph that answers like the model, and faster, is written down.

What is compared is what would be served: the wrapper of ``serving.acceleration`` on one side, the framework's own class
on the other; row by row and in batches, for each type of rows that requests bring.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

from stageway.errors import StagewayError
from stageway.serving import acceleration, frameworks
from stageway.serving.acceleration import FORMAT, MODEL, REPORT, Accelerated
from stageway.serving.convert import agreement, graph, inputs
from stageway.serving.convert.agreement import Agreement, compare
from stageway.serving.convert.graph import Graph
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Call, ScoringError, log_traceback, said
from stageway.serving.settings import Settings

FASTER = 1.2
"""How many times faster one row must be answered; 64 rows must not be slower."""
ALONE = 150
"""Rows that are compared one by one too: some graphs take another way for a single row."""
FEWEST = 2000
"""Generated rows that the form must have answered."""
BATCH = 256
SCORES = ("predict_proba", "decision_function", "transform")
"""Methods that tell how sure a class is, the best one first."""
KINDS = ("float64", "int64", "float32")
SLICE = 64
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EIO)

Candidates = Callable[[Any, int, "list[str]"], "Iterator[Graph]"]


class NotAcceleratedError(StagewayError):
    """The original serves; the message says why."""


def run(framework: str, samples: str, into: str) -> int:
    """Write the answer for the model of ``AZUREML_MODEL_DIR`` into the folder *into*."""
    folder = Path(into)
    warnings.simplefilter("ignore")
    try:
        scorer = frameworks.load(Settings(framework=framework))
        speed = accelerate(scorer, _bodies(Path(samples)), folder / "form")
        answer: "dict[str, Any]" = {"speed": speed}
    except StagewayError as error:
        answer = {"reason": error.message, "passing": _passing(error)}
    except MemoryError:
        answer = {"reason": "the converter ran out of memory", "passing": True}
    except Exception as error:  # whatever a converter or a model raises, the original serves
        log_traceback(error)
        answer = {"reason": "the converter failed: {}".format(said(error)), "passing": _passing(error)}
    fresh = folder / "answer.json.new"
    fresh.write_text(json.dumps(answer), encoding="utf-8")
    fresh.replace(folder / "answer.json")
    # Threads of numeric libraries may hang at exit; what was to be written is.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _passing(error: Optional[BaseException]) -> bool:
    """Tell whether it was for want of memory or for a disk: that may be otherwise another time."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in PASSING):
            return True
        error = error.__cause__ or error.__context__
    return False


def accelerate(
    scorer: Any, bodies: "list[bytes]", form: Path, candidates: Candidates = graph.candidates
) -> "dict[str, Any]":
    """Write ``model.onnx`` and ``report.json`` into *form* and return how fast they are.

    Raises ``NotAcceleratedError``. *scorer* is the framework's own, *bodies* are requests of samples.
    """
    model, columns = getattr(scorer, "model", None), getattr(scorer, "columns", None)
    if model is None or not columns:
        raise NotAcceleratedError("the model does not say how many columns its rows have")
    trial = _Trial(scorer, bodies, inputs.generated(model, columns, _seen(scorer, bodies)))
    found: "list[_Form]" = []
    first = ""
    form.mkdir(parents=True, exist_ok=True)
    try:
        for candidate in candidates(model, columns, scorer.methods):
            content = candidate.model.SerializeToString(deterministic=True)
            (form / MODEL).write_bytes(content)
            try:
                report = trial.report(candidate, form)
                found.append(_Form(content, report, trial.speed(Accelerated(scorer, form), candidate.methods)))
            except StagewayError as error:
                if _passing(error):
                    raise
                # Where one answers otherwise, that is why; the rest did not even try.
                first = first if "differs" in first else error.message.replace(str(form), form.name)
            else:
                if not found[-1].differing:
                    break
    except graph.UnsupportedError as error:
        raise NotAcceleratedError("no ONNX form: {}".format(error)) from error
    if not found:
        raise NotAcceleratedError(first or "no ONNX form: the converters know none")
    best = min(found, key=lambda one: one.differing)
    (form / MODEL).write_bytes(best.content)
    _write(form, best.report)
    return best.speed


@dataclass(frozen=True)
class _Form:
    """A form that may serve."""

    content: bytes
    report: "dict[str, Any]"
    speed: "dict[str, Any]"

    @property
    def differing(self) -> int:
        """Rows whose class differs because it is too close to call."""
        return sum(facts.get("differing_there", 0) for facts in self.report["compared"].values())


class _Trial:
    """One model, its samples and generated rows, against one ONNX form after the other."""

    def __init__(self, scorer: Any, bodies: "list[bytes]", groups: "dict[str, Any]") -> None:
        import numpy as np

        self._scorer, self._groups = scorer, groups
        # Rows come as tables where the model wants the names of its columns.
        self._tables = hasattr(scorer.take({"rows": groups["whole"][:1]}, []).data[1], "columns")
        self._samples = [work.data for work in map(scorer.read, map(_call, bodies))]
        self.rows = np.concatenate(list(groups.values()))
        missing = np.concatenate([groups["range"], groups["whole"]])[::2].copy()
        missing[np.random.default_rng(inputs.SEED).random(missing.shape) < 0.2] = np.nan
        self.missing = missing
        self._usual: "dict[str, float]" = {}
        self._answers: "dict[Any, Any]" = {}

    def report(self, candidate: Graph, form: Path) -> "dict[str, Any]":
        """Compare the form in *form* with the original; ``NotAcceleratedError`` names what differs first."""
        import onnxruntime

        if not candidate.methods:
            raise NotAcceleratedError("no ONNX form answers one of {}".format(", ".join(self._scorer.methods)))
        tolerance = agreement.SINGLE if candidate.single else agreement.DOUBLE
        shapes = self._shapes(candidate.methods)
        report: "dict[str, Any]" = {
            "format": FORMAT,
            "input": {"name": graph.INPUT, "type": candidate.type},
            "methods": candidate.methods,
            "outputs": shapes,
            "rows": [kind for kind in KINDS if all(kind in shapes[method] for method in candidate.methods)],
            "nan": False,
            "tolerance": tolerance,
        }
        _write(form, report)
        accelerated = Accelerated(self._scorer, form)
        found = {method: self._compared(accelerated, candidate, method, report) for method in candidate.methods}
        report["nan"] = self._nan_agrees(form, report, tolerance)
        report["compared"] = {method: _facts(one) for method, one in found.items()}
        report["generated"] = {"seed": inputs.SEED, **{name: len(rows) for name, rows in self._groups.items()}}
        report["samples"] = len(self._samples)
        report["opset"] = {one.domain or "ai.onnx": one.version for one in candidate.model.opset_import}
        report["versions"] = {"onnxruntime": onnxruntime.__version__, **_versions()}
        return report

    def speed(self, accelerated: Accelerated, methods: "dict[str, str]") -> "dict[str, Any]":
        """Measure both on 1 and 64 rows; ``NotAcceleratedError`` when it is not worth it."""
        method = next(iter(methods))
        found: "dict[str, Any]" = {}
        for count in (1, SLICE):
            original, other = _fastest((method, self._given(self.rows[:count])), self._scorer.run, accelerated.run)
            found[str(count)] = {"original_us": round(original * 1e6, 1), "accelerated_us": round(other * 1e6, 1)}
            if original < other * (FASTER if count == 1 else 1.0):
                sentence = "not faster: {} takes {:.0f} µs, its ONNX form {:.0f} µs"
                what = "one row" if count == 1 else "{} rows".format(count)
                raise NotAcceleratedError(sentence.format(what, original * 1e6, other * 1e6))
        return found

    def _shapes(self, methods: "dict[str, str]") -> "dict[str, dict[str, Any]]":
        """Ask the original what it answers to each type of rows: the shape of one row's answer, and its type."""
        import numpy as np

        shapes: "dict[str, dict[str, Any]]" = {}
        for method in methods:
            shapes[method] = {}
            for kind in KINDS:
                rows = self._given(self._groups["range"].astype(kind))
                try:
                    result = np.asarray(self._scorer.run((method, rows)))
                except (BadRequestError, ScoringError):
                    continue
                if kind == "float64":
                    self._usual[method] = agreement.usual_size(result)
                shapes[method][kind] = {"rows": kind, "shape": list(result.shape[1:]), "type": _type(result.dtype)}
        lacking = [method for method, kinds in shapes.items() if "float64" not in kinds]
        if lacking:
            raise NotAcceleratedError("the model's {} takes no rows of numbers".format(lacking[0]))
        return shapes

    def _compared(self, accelerated: Accelerated, candidate: Graph, method: str, report: "dict[str, Any]") -> Agreement:
        """Compare *method* for each type of rows; a type other than the ordinary one that differs is left out."""
        tolerance, whole = report["tolerance"], Agreement()
        for kind in list(report["rows"]):
            # What a model does in 32 bits is itself only known to 32 bits.
            allowed = max(tolerance, agreement.SINGLE) if kind == "float32" else tolerance
            found = self._kind(accelerated, method, kind, allowed)
            if kind == "float64" and (found.wrong or found.compared < FEWEST):
                raise NotAcceleratedError(_disagreement(candidate, method, found))
            if found.wrong:
                report["rows"].remove(kind)
            else:
                whole.add(found)
        for number, (asked, rows) in enumerate(self._samples):
            array = acceleration.as_array(rows) if hasattr(rows, "columns") else rows
            if asked == method and hasattr(array, "dtype"):
                found = self._one(accelerated, method, array, tolerance)
                if found.wrong:
                    sentence = "{} of its ONNX form ({}) differs on sample {}"
                    raise NotAcceleratedError(sentence.format(method, candidate.words, number + 1))
                whole.add(found)
        return whole

    def _kind(self, accelerated: Accelerated, method: str, kind: str, tolerance: float) -> Agreement:
        """Compare rows of one type in batches, and some of all groups one by one."""
        import numpy as np

        rows = self.rows if kind == "float64" else self.rows[np.abs(self.rows).max(axis=1) < 1e15].astype(kind)
        found = Agreement()
        for at in range(0, len(rows), BATCH):
            found.add(self._one(accelerated, method, rows[at : at + BATCH], tolerance))
        for at in range(0, len(rows), max(1, len(rows) // ALONE)) if kind == "float64" else ():
            found.add(self._one(accelerated, method, rows[at : at + 1], tolerance))
        return found

    def _one(self, accelerated: Accelerated, method: str, rows: Any, tolerance: float) -> Agreement:
        """Compare the answers to *rows*, one call on each side; what the form leaves to the original is not counted."""
        plan = accelerated.plan(method, rows.dtype)
        other = None if plan is None else accelerated.answer(plan, rows)
        if other is None:
            found = Agreement()
            for at in range(len(rows) if len(rows) > 1 else 0):
                found.add(self._one(accelerated, method, rows[at : at + 1], tolerance))
            return found
        return self._judged(method, other, self._given(rows), tolerance)

    def _judged(self, method: str, other: Any, given: Any, tolerance: float) -> Agreement:
        try:
            original = self._original(method, given)
            close = None if original.dtype.kind == "f" else self._close(given, tolerance)
        except (BadRequestError, ScoringError):
            # What the model refuses must not be answered.
            return Agreement(len(other), float("inf"), wrong=True)
        usual = 1.0 if method == "predict_proba" else self._usual[method]
        return compare(original, other, tolerance, usual, close)

    def _nan_agrees(self, form: Path, report: "dict[str, Any]", tolerance: float) -> bool:
        """Tell whether rows with missing values are taken by the original, and answered alike."""
        _write(form, {**report, "nan": True})
        accelerated = Accelerated(self._scorer, form)
        given = self._given(self.missing)
        for method in report["methods"]:
            plan = accelerated.plan(method, self.missing.dtype)
            other = None if plan is None else accelerated.answer(plan, self.missing)
            if other is None or self._judged(method, other, given, tolerance).wrong:
                return False
        return True

    def _close(self, given: Any, tolerance: float) -> Any:
        """Tell for which rows the original's class is too close to call."""
        for method in SCORES:
            if method in self._scorer.methods:
                return agreement.too_close(self._original(method, given), tolerance, distances=method == "transform")
        return None

    def _original(self, method: str, given: Any) -> Any:
        """Ask the original, once for all candidates."""
        import numpy as np

        values = given.to_numpy() if hasattr(given, "columns") else given
        key = (method, values.dtype.str, values.shape, values.tobytes())
        if key not in self._answers:
            self._answers[key] = np.asarray(self._scorer.run((method, given)))
        return self._answers[key]

    def _given(self, rows: Any) -> Any:
        """Return *rows* as requests bring them: as a table, where the model has names for its columns."""
        if not self._tables:
            return rows
        import pandas as pd

        return pd.DataFrame(rows, columns=self._scorer.names)


def _fastest(data: Any, *calls: "Callable[[Any], Any]") -> "list[float]":
    """Return the least seconds that each of *calls* takes with *data*; in turns, so that a busy moment hits all."""
    least = [float("inf")] * len(calls)
    for _ in range(7):
        for number, call in enumerate(calls):
            call(data)
            times = 3
            started = time.perf_counter()
            while True:
                for _ in range(times):
                    call(data)
                seconds = time.perf_counter() - started
                if seconds > 0.01:
                    break
                times, started = times * 4, time.perf_counter()
            least[number] = min(least[number], seconds / times)
    return least


def _disagreement(candidate: Graph, method: str, found: Agreement) -> str:
    if not found.wrong:
        return "onnxruntime answers only {} of the generated rows ({})".format(found.compared, candidate.words)
    what = "by {:.2g}".format(found.largest) if found.largest else "in the class"
    return "{} of its ONNX form ({}) differs {}".format(method, candidate.words, what)


def _facts(found: Agreement) -> "dict[str, Any]":
    facts: "dict[str, Any]" = {"rows": found.compared, "largest_difference": float("{:.1e}".format(found.largest))}
    if found.close:
        facts.update(too_close_to_call=found.close, differing_there=found.differ_close)
    return facts


def _versions() -> "dict[str, str]":
    from importlib import metadata

    found = {}
    for name in ("skl2onnx", "onnxmltools", "onnx", "scikit-learn", "xgboost", "xgboost-cpu", "lightgbm", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _type(dtype: Any) -> str:
    """Name a type so that numpy reads it again; the length of texts is left open."""
    return "object" if dtype.kind in "OUS" else str(dtype)


def _seen(scorer: Any, bodies: "list[bytes]") -> Any:
    """Return the rows of all samples as one array, or ``None`` where they are no numbers."""
    import numpy as np

    found = []
    for body in bodies:
        try:
            rows = np.asarray(scorer.read(_call(body)).data[1], dtype="float64")
        except (BadRequestError, TypeError, ValueError):
            continue
        if rows.ndim == 2 and rows.shape[1] == scorer.columns and np.isfinite(rows).all():
            found.append(rows)
    return np.concatenate(found) if found else None


def _bodies(folder: Path) -> "list[bytes]":
    return [path.read_bytes() for path in sorted(folder.glob("*.json"))]


def _call(body: bytes) -> Call:
    return Call("POST", "/score", body, "", "application/json", dict)


def _write(form: Path, report: "dict[str, Any]") -> None:
    (form / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
