"""Entry scripts as models of tensors: where their decorators declare arrays, or one table, and a result of that kind.

An array is one tensor with the parameter's name, a table one tensor for each of its columns. The result is the tensor
``output``, or again one for each column.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Mapping, Optional

from stageway.contract import Schema
from stageway.serving import decorators, tensors
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Signature, Tensor

OUTPUT = "output"
ARRAY, TABLE = "numpy.ndarray", "pandas.DataFrame"
FORMATS = {"double": "FP64", "float": "FP32", "int64": "INT64", "int32": "INT32"}
KINDS = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "string": "BYTES"}


class ScriptTensors:
    """What a decorated ``run`` takes and gives, as tensors; ``of`` makes it."""

    def __init__(self, samples: "Mapping[str, Any]", signature: Signature) -> None:
        self.signature = signature
        self._samples = samples
        self._table = next((name for name, sample in samples.items() if hasattr(sample, "columns")), None)

    def arguments(self, given: "Mapping[str, Any]") -> "dict[str, Any]":
        """Return the arguments of ``run`` that the arrays *given* are; ``BadRequestError`` when they do not fit."""
        fitting = tensors.fitted(given, self.signature.inputs)
        if self._table is None:
            return {name: _as(self._samples[name].dtype, array) for name, array in fitting.items()}
        table, sample = tensors.table(fitting), self._samples[self._table]
        # Names of columns are text in a tensor, and may be numbers in a table.
        table.columns = sample.columns
        return {self._table: table.astype(sample.dtypes.to_dict())}

    def named(self, result: Any) -> "dict[str, Any]":
        """Return what ``run`` returned as named arrays; ``TypeError`` when it is not what was declared."""
        outputs = self.signature.outputs
        if outputs[0].name == OUTPUT:
            return {OUTPUT: tensors.array(result, outputs[0].datatype)}
        if not hasattr(result, "columns"):
            import pandas as pd

            result = pd.DataFrame(result)
        return tensors.columns(result)


def of(run: "Callable[..., Any]", schemas: "Mapping[str, Any]") -> Optional[ScriptTensors]:
    """Return the tensors of *run*, declared by *schemas* (of ``decorators.declared``); ``None`` if it has none.

    The request's headers and optional arguments have no tensors, so a ``run`` with either has none.
    """
    parameters = inspect.signature(inspect.unwrap(run)).parameters
    if any(name == decorators.HEADERS or one.default is not one.empty for name, one in parameters.items()):
        return None
    types = dict(decorators.parameter_types(run))
    inputs: "list[Optional[Tensor]]" = []
    for name in schemas["input"].get("properties", {}):
        sample = getattr(types.get(name), "sample_input", None)
        if hasattr(sample, "columns") and len(types) == 1:
            inputs += tensors.of_table(sample) or (None,)
        elif hasattr(sample, "dtype") and hasattr(sample, "ndim"):
            inputs.append(tensors.of_array(name, sample, enforced=bool(getattr(types[name], "enforce_shape", True))))
        else:
            return None
    known = tuple(one for one in inputs if one is not None)
    outputs = _outputs(schemas["output"] or {})
    if not known or not outputs or len(known) < len(inputs):
        return None
    return ScriptTensors({name: one.sample_input for name, one in types.items()}, Signature(known, outputs, "python"))


def lacking(raw: bool, schemas: "Optional[Mapping[str, Any]]") -> str:
    """Say why ``of`` finds no tensors."""
    if raw:
        return "its script takes the request itself"
    if schemas is None:
        return "its script has no decorators with samples of arrays or of a table"
    return "its script declares something else than arrays, or one table, and a result of either kind"


def _outputs(schema: Schema) -> "tuple[Tensor, ...]":
    """Return the tensors of a declared result, of which only the Swagger schema is kept; none if it is neither."""
    form, items = str(schema.get("format", "")), schema.get("items") or {}
    if form.startswith(TABLE):
        found = [(name, _datatype(one)) for name, one in (items.get("properties") or {}).items()]
        return tuple(Tensor(name, kind, (-1, 1)) for name, kind in found if kind) if all(k for _, k in found) else ()
    if form != ARRAY:
        return ()
    depth = 1
    while items.get("type") == "array":
        items, depth = items.get("items") or {}, depth + 1
    kind = _datatype(items)
    return (Tensor(OUTPUT, kind, (-1,) * depth),) if kind else ()


def _datatype(schema: Schema) -> Optional[str]:
    return FORMATS.get(schema.get("format", ""), KINDS.get(str(schema.get("type"))))


def _as(dtype: Any, array: Any) -> Any:
    if dtype.kind in "US":
        if tensors.room(array.ravel().tolist()) > tensors.WIDEST:
            raise BadRequestError("a text is too long to stand among so many values")
        return tensors.text(array).astype(dtype.kind)
    return tensors.text(array) if dtype.kind == "O" else array
