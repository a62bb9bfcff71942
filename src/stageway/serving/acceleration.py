"""A verified ONNX form of a model, which answers in the model's place; made by ``serving.convert``.

The folder holds ``model.onnx`` and ``report.json``, which says for which methods and types of rows the two were found
to agree. What is not in the report, and every row that is not an ordinary number, is asked of the original.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from stageway.serving.scorer import Scorer, StartError

MODEL = "model.onnx"
REPORT = "report.json"
FORMAT = 1

ORDINARY = 1e38
"""Numbers below fit into 32 bits. One sum of squares tells whether all do, NaN and infinity included."""
EXACT = 2.0**53
"""Whole numbers below are exact as floating point."""


class Accelerated:
    """Answers like *original* with the ONNX form in *folder*; everything but ``run`` is the original's own."""

    def __init__(self, original: Scorer, folder: Path) -> None:
        self._original = original
        self._ask = original.run
        self.contract, self.declared, self.signature = original.contract, original.declared, original.signature
        self.start, self.read, self.take, self.give = original.start, original.read, original.take, original.give
        self.join, self.split = original.join, original.split
        report = _report(folder)
        self._nan = bool(report["nan"])
        self._session, self._answer = _session(folder)
        self._input: str = report["input"]["name"]
        self._plans = {
            (method, _dtype(kind)): _Plan(_dtype(report["input"]["type"]), output, report["outputs"][method][kind])
            for method, output in report["methods"].items()
            for kind in report["rows"]
        }

    def run(self, data: Any) -> Any:
        method, rows = data
        if hasattr(rows, "columns"):
            rows = as_array(rows)
        plan = self._plans.get((method, getattr(rows, "dtype", None)))
        found = None if plan is None else self.answer(plan, rows)
        return self._ask(data) if found is None else found

    def answer(self, plan: "_Plan", rows: Any) -> Any:
        """Return what the ONNX form says to *rows*, or ``None`` where only the original may be asked."""
        given = rows if plan.given is None else rows.astype(plan.given)
        flat = given.ravel()
        # A comparison with NaN is false.
        if not flat.dot(flat) < plan.most and not self._missing(flat, plan):
            return None
        if rows.ndim != 2 or not len(rows):
            return None
        try:
            result = self._answer(plan.outputs, {self._input: given if plan.cast is None else given.astype(plan.cast)})
            found = result[0].reshape(len(rows), *plan.shape)
        except Exception:
            # What it cannot do, such as another number of columns, the original can or refuses in its own words.
            return None
        return found if found.dtype == plan.dtype else found.astype(plan.dtype)

    def plan(self, method: str, kind: Any) -> "Optional[_Plan]":
        """Return how *method* is answered for rows of the type *kind*, if it is."""
        return self._plans.get((method, kind))

    def _missing(self, flat: Any, plan: "_Plan") -> bool:
        """Tell whether *flat* has missing values (NaN) beside ordinary numbers, and the two agree on those."""
        import numpy as np

        if not self._nan or plan.given is not None:
            return False
        return bool((np.isnan(flat) | (np.abs(flat) < ORDINARY)).all())


class _Plan:
    """How one method is answered for one type of rows: *given* and *cast* are ``None`` where nothing is to be done."""

    __slots__ = ("cast", "dtype", "given", "most", "outputs", "shape")

    def __init__(self, wanted: Any, output: str, result: "dict[str, Any]") -> None:
        double, rows = _dtype("float64"), _dtype(result["rows"])
        whole = rows.kind == "i"
        self.given = double if whole else None
        self.most = EXACT**2 if whole else ORDINARY**2 if rows == double else float("inf")
        self.cast = None if wanted == (double if whole else rows) else wanted
        self.outputs = [output]
        self.shape = tuple(result["shape"])
        self.dtype = _dtype(result["type"])


def _report(folder: Path) -> "dict[str, Any]":
    try:
        report: "dict[str, Any]" = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError("--accelerated {}: {} cannot be read: {}".format(folder, REPORT, error)) from error
    if report.get("format") != FORMAT:
        sentence = "--accelerated {}: {} is of format {}, this serving layer reads {}; package the model again"
        raise StartError(sentence.format(folder, REPORT, report.get("format"), FORMAT))
    return report


def _session(folder: Path) -> Any:
    """Return the session on the ONNX form and the function that runs it."""
    try:
        import onnxruntime
    except ImportError as error:
        sentence = "--accelerated {}: the package onnxruntime is missing ({}); add it to the dependencies"
        raise StartError(sentence.format(folder, error)) from error
    options = onnxruntime.SessionOptions()
    # One prediction thread has one core's work; a pool of threads would only pass it around.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise StartError("--accelerated {}: {} cannot be read: {}".format(folder, MODEL, error)) from error
    return session, session.run


def _dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name)


def as_array(table: Any) -> Any:
    """Return a table's values as one array where all its columns are numbers, else the table."""
    kinds = {getattr(kind, "kind", "O") for kind in table.dtypes}
    sizes = {getattr(kind, "itemsize", 0) for kind in table.dtypes}
    if sizes != {8} or not kinds <= {"f", "i"}:
        return table
    return table.to_numpy("int64" if kinds == {"i"} else "float64")
