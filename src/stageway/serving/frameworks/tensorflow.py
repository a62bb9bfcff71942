"""TensorFlow: one SavedModel, asked in the forms of TensorFlow Serving, rows or columns."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

from stageway.contract import Contract, Schema
from stageway.serving import replies
from stageway.serving import tensors as arrays
from stageway.serving.frameworks import files
from stageway.serving.frameworks.named import Named, fitting, known, listed
from stageway.serving.replies import BadRequestError, Reply, loads
from stageway.serving.scorer import Call, Signature, StartError, Tensor, Work
from stageway.serving.settings import Settings

MARK = "saved_model.pb"
SIGNATURE = "serving_default"
BYTES = "b64"


class TensorFlow(Named):
    """The signature ``serving_default``: ``{"instances": [...]}`` is answered by ``{"predictions": [...]}``."""

    def __init__(self, settings: Settings) -> None:
        path = files.one_folder(MARK)
        # Without these it writes pages to the log about processors that are not there.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, str(files.threads()))
        self._library = files.package("tensorflow", "tensorflow or tensorflow-cpu")
        # The signature lives no longer than the model does.
        self.model = files.read(path, lambda path: self._library.saved_model.load(str(path)))
        signatures = dict(self.model.signatures)
        if SIGNATURE not in signatures:
            sentence = "model {} has no signature {}; it has {}"
            raise StartError(sentence.format(path, SIGNATURE, ", ".join(signatures) or "none"))
        self._function = signatures[SIGNATURE]
        inputs = _tensors(self._function.structured_input_signature[1])
        outputs = _tensors(self._function.structured_outputs)
        self._dtypes = {name: one.dtype for name, one in self._function.structured_input_signature[1].items()}
        self.refusals = (ValueError, TypeError, self._library.errors.InvalidArgumentError)
        super().__init__(Signature(inputs, outputs, "tensorflow_savedmodel"), settings.batching)
        self.contract = self._known()

    def call(self, given: "dict[str, Any]") -> "dict[str, Any]":
        constant = self._library.constant
        found = self._function(**{name: constant(array, self._dtypes[name]) for name, array in given.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    def read(self, call: Call) -> Work:
        given: Any = call.query_values() if call.method == "GET" else loads(call.body)
        if not isinstance(given, dict) or ("instances" in given) == ("inputs" in given):
            raise BadRequestError("one of 'instances' and 'inputs' is needed; send {\"instances\": [...]}")
        signature = given.get("signature_name", SIGNATURE)
        if signature != SIGNATURE:
            raise BadRequestError("the signature {!r} is not served; leave it out".format(signature))
        by_row = "instances" in given
        columns = self._columns(given["instances"]) if by_row else self._named(given["inputs"])
        found = {name: self._array(name, value) for name, value in columns.items()}
        return self.work(
            arrays.fitted(found, tuple(self.inputs.values())),
            _predictions if by_row else _outputs,
        )

    def _columns(self, instances: Any) -> "dict[str, list[Any]]":
        """Turn rows, each an object with the inputs or the one input's value, into one list for each input."""
        if not isinstance(instances, list) or not instances:
            raise BadRequestError("'instances' is not a list of rows")
        named = all(isinstance(row, dict) and set(row) != {BYTES} for row in instances)
        if not named:
            return {self._only(): instances}
        for number, row in enumerate(instances):
            if set(row) != set(instances[0]):
                raise BadRequestError("'instances': row {} has other inputs than row 0".format(number))
        return {name: [row[name] for row in instances] for name in instances[0]}

    def _named(self, inputs: Any) -> "dict[str, Any]":
        return inputs if isinstance(inputs, dict) and set(inputs) != {BYTES} else {self._only(): inputs}

    def _only(self) -> str:
        if len(self.inputs) != 1:
            raise BadRequestError("the model has the inputs {}; name each".format(listed(self.inputs)))
        return next(iter(self.inputs))

    def _array(self, name: str, value: Any) -> Any:
        one = self.inputs.get(name)
        if one is None:
            raise BadRequestError("the model has no input {!r}; it takes {}".format(name, listed(self.inputs)))
        return _texts(name, value) if one.datatype == "BYTES" else fitting(value, one)

    def _known(self) -> Contract:
        """Return the form by rows where every input has rows, else the one by columns."""
        sides = [*self.inputs.values(), *self.outputs.values()]
        if any(not one.shape or one.shape[0] != -1 for one in sides):
            return Contract(_object("inputs", known(self.inputs.values())), None, "signature")
        return Contract(
            _object("instances", _rows(known(self.inputs.values()))),
            _object("predictions", _rows(known(self.outputs.values()))),
            "signature",
        )


def _predictions(result: Any) -> Reply:
    named = {name: _plain(name, value) for name, value in result.items()}
    if len(named) == 1:
        return replies.of({"predictions": next(iter(named.values()))})
    rows = zip(*(list(value) for value in named.values()))
    return replies.of({"predictions": [dict(zip(named, row)) for row in rows]})


def _outputs(result: Any) -> Reply:
    named = {name: _plain(name, value) for name, value in result.items()}
    return replies.of({"outputs": next(iter(named.values())) if len(named) == 1 else named})


def _plain(name: str, value: Any) -> Any:
    """Return an output as JSON has it; bytes are text, or base64 where the output's name or their content says so."""
    return _unpacked(value.tolist(), name.endswith("_bytes")) if value.dtype.kind in "OS" else value


def _unpacked(value: Any, packed: bool) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, packed) for one in value]
    if isinstance(value, bytes):
        try:
            return {BYTES: base64.b64encode(value).decode("ascii")} if packed else value.decode()
        except UnicodeDecodeError:
            return _unpacked(value, True)
    return value


def _texts(name: str, value: Any) -> Any:
    """Return text, and ``{"b64": ...}``, in nested lists, as an array of bytes."""
    import numpy as np

    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if not arrays.possible(shape):
        raise BadRequestError("the input {!r} is nested too deeply".format(name))
    flat = _flat(name, value, len(shape))
    if len(flat) != np.prod(shape, dtype=int):
        raise BadRequestError("the input {!r} is no table: its parts differ in length".format(name))
    found = np.empty(len(flat), dtype=object)
    found[:] = flat
    return found.reshape(shape)


def _flat(name: str, value: Any, depth: int) -> "list[bytes]":
    if isinstance(value, list) and depth:
        return [one for part in value for one in _flat(name, part, depth - 1)]
    if isinstance(value, str) and not depth:
        return [value.encode("utf-8", "surrogatepass")]
    if isinstance(value, dict) and set(value) == {BYTES} and not depth:
        try:
            return [base64.b64decode(value[BYTES], validate=True)]
        except (TypeError, ValueError, binascii.Error):
            pass
    raise BadRequestError("the input {!r} holds {:.60} where text or base64 is needed".format(name, repr(value)))


def _tensors(specs: "dict[str, Any]") -> "tuple[Tensor, ...]":
    found = []
    for name, one in sorted(specs.items()):
        shape = one.shape.as_list() if one.shape.rank is not None else []
        datatype = "BYTES" if one.dtype.name == "string" else arrays.NAMES.get(one.dtype.name)
        if datatype is None:
            raise StartError("the model's {!r} is {}, which no request can hold".format(name, one.dtype.name))
        found.append(Tensor(name, datatype, tuple(-1 if length is None else int(length) for length in shape)))
    return tuple(found)


def _rows(schema: Schema) -> Schema:
    """Return an array of the objects whose columns are *schema*; of one column, an array of its values."""
    inner = {name: one["items"] for name, one in schema["properties"].items()}
    only = next(iter(inner.values())) if len(inner) == 1 else None
    return {"type": "array", "items": only or {"type": "object", "properties": inner, "required": sorted(inner)}}


def _object(name: str, schema: Schema) -> Schema:
    return {"type": "object", "properties": {name: schema}, "required": [name]}
