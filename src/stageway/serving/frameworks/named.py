"""Models of named tensors, such as ONNX graphs: work is a dict of arrays, and so is what comes out."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

from stageway.contract import Contract, Schema
from stageway.serving import joining
from stageway.serving import tensors as arrays
from stageway.serving.replies import BadRequestError, Reply
from stageway.serving.scorer import ScoringError, Signature, Tensor, Work, log_traceback, said

ROWS = 3
"""How many rows are tried, alone and together, before a model's rows are taken to be independent."""


class Named:
    """What ONNX and TensorFlow have in common: inputs and outputs with names, datatypes and shapes."""

    declared: "Optional[dict[str, Any]]" = None
    contract: Contract
    signature: Optional[Signature]

    def __init__(self, signature: Signature, batching: str) -> None:
        self.signature = signature
        self.inputs = {one.name: one for one in signature.inputs}
        self.outputs = {one.name: one for one in signature.outputs}
        self._independent = batching == "on" or (batching == "auto" and self._proven())

    def call(self, given: "dict[str, Any]") -> "dict[str, Any]":
        """Run the model; an error of the kinds in ``refusals`` is the client's."""
        raise NotImplementedError

    refusals: "tuple[type[BaseException], ...]" = (ValueError, TypeError)

    def start(self) -> None:
        """Nothing more: the constructor has read the model."""

    def take(self, tensors: "Mapping[str, Any]", outputs: "Sequence[str]") -> Work:
        def unwritten(result: Any) -> Reply:
            raise TypeError("the caller writes this reply")

        return self.work(arrays.fitted(tensors, tuple(self.inputs.values())), unwritten)

    def give(self, result: Any, outputs: "Sequence[str]") -> "dict[str, Any]":
        return {name: arrays.array(plain(result[name])) for name in outputs or self.outputs}

    def work(self, given: "dict[str, Any]", write: "Callable[[Any], Reply]") -> Work:
        """Return the work of *given*, which fits the inputs."""
        lengths = {array.shape[0] if array.ndim else -1 for array in given.values()}
        rows = lengths.pop() if len(lengths) == 1 else -1
        if not self._independent or rows < 1:
            return Work(given, write)
        return Work(given, write, tuple(array.shape[1:] for array in given.values()), rows)

    def run(self, data: Any) -> Any:
        try:
            return self.call(data)
        except self.refusals as error:
            raise BadRequestError("the model refused the data: {}".format(said(error))) from None
        except BaseException as error:
            log_traceback(error)
            raise ScoringError(said(error)) from error

    def join(self, parts: "list[Any]") -> Any:
        return joining.join(parts)

    def split(self, result: Any, rows: "list[int]") -> "list[Any]":
        return joining.split(result, rows)

    def chosen(self, names: Any) -> "list[str]":
        """Return the outputs that a request asks for; none named are all."""
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadRequestError("the output filter {!r} is not a list of names".format(names))
        for name in names:
            if name not in self.outputs:
                raise BadRequestError("the model has no output {!r}; it gives {}".format(name, listed(self.outputs)))
        return names or list(self.outputs)

    def _proven(self) -> bool:
        """Tell whether rows are independent: the shapes allow it, and it is so for a few rows of made-up numbers."""
        sides = [*self.inputs.values(), *self.outputs.values()]
        if not self.inputs or not self.outputs or any(not one.shape or one.shape[0] != -1 for one in sides):
            return False
        if any(one.datatype == "BYTES" for one in self.inputs.values()):
            return False
        try:
            return self._agrees({name: made_up(one) for name, one in self.inputs.items()})
        except BaseException:
            return False

    def _agrees(self, given: "dict[str, Any]") -> bool:
        import numpy as np

        parts = self.split(self.call(given), [1] * ROWS)
        for number, part in enumerate(parts):
            alone = self.call({name: array[number : number + 1] for name, array in given.items()})
            for name, value in part.items():
                one, other = np.asarray(plain(value)), np.asarray(plain(alone[name]))
                same = np.array_equal if one.dtype.kind not in "fc" else np.allclose
                if one.shape != other.shape or not same(one, other):
                    return False
        return True


def made_up(one: Tensor) -> Any:
    """Return an array for the input *one*; lengths that it leaves open are 1, but for ``ROWS`` rows."""
    import numpy as np

    shape = [ROWS, *(1 if length < 0 else length for length in one.shape[1:])]
    dtype = np.dtype(arrays.DTYPES[one.datatype])
    chance = np.random.default_rng(0)
    return (
        chance.standard_normal(shape).astype(dtype) if dtype.kind == "f" else chance.integers(0, 2, shape).astype(dtype)
    )


def fitting(value: Any, one: Tensor) -> Any:
    """Return nested lists as an array for the input *one*: of its datatype, if nothing is lost by that."""
    import numpy as np

    wanted = np.dtype(arrays.DTYPES[one.datatype])
    text = arrays.room(value) > 0
    try:
        found = np.array(value, dtype=object if text else None)
    except ValueError:
        raise BadRequestError("the input {!r} is no table: its parts differ in length".format(one.name)) from None
    if found.dtype.kind == "O" and wanted.kind == "f" and not text:
        # A null is a value that is missing, which models know as NaN.
        try:
            found = np.array(value, dtype=float)
        except (TypeError, ValueError, OverflowError):
            pass
    if wanted.kind == "O":
        fits, cast = text and all(isinstance(one, str) for one in found.ravel()), found
    elif found.dtype.kind not in "fiub" or (found.dtype.kind == "b") != (wanted.kind == "b"):
        fits, cast = not found.size, found.astype(wanted) if not found.size else found
    else:
        with np.errstate(all="ignore"):
            cast = found.astype(wanted)
        fits = wanted.kind == "f" or bool(np.array_equal(cast, found))
    if not fits:
        sentence = "the input {!r} holds values that are not {}"
        raise BadRequestError(sentence.format(one.name, one.datatype))
    return cast


def known(sides: "Iterable[Tensor]") -> Schema:
    """Return the schema of an object with nested lists for each of the tensors."""
    properties = {one.name: _nested(one) for one in sides}
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def plain(value: Any) -> Any:
    """Return what ONNX's classifiers give, a list of ``{label: probability}``, as rows of probabilities."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [list(row.values()) for row in value]
    return value


def listed(names: "Iterable[str]") -> str:
    return ", ".join(repr(name) for name in names)


def _nested(one: Tensor) -> Schema:
    kinds = {"BOOL": "boolean", "BYTES": "string", "FP16": "number", "FP32": "number", "FP64": "number"}
    schema: Schema = {"type": kinds.get(one.datatype, "integer")}
    for length in reversed(one.shape):
        schema = {"type": "array", "items": schema}
        if length >= 0:
            schema.update(minItems=length, maxItems=length)
    return schema
