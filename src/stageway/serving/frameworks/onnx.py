"""ONNX: one ``.onnx`` file, run by onnxruntime on the processor."""

from __future__ import annotations

from typing import Any

from stageway.contract import Contract
from stageway.serving import replies
from stageway.serving import tensors as arrays
from stageway.serving.frameworks import files, tensorproto
from stageway.serving.frameworks.named import Named, fitting, known, listed, plain
from stageway.serving.replies import BadRequestError, Reply, loads
from stageway.serving.scorer import Call, Signature, StartError, Tensor, Work
from stageway.serving.settings import Settings

ENDINGS = (".onnx", ".ort")
FILTER = "outputFilter"
DATATYPES = {
    "bool": "BOOL",
    "string": "BYTES",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    **{
        "{}int{}".format(sign, bits): "{}INT{}".format(sign.upper(), bits)
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


class Onnx(Named):
    """One graph. A request has each input in ONNX's own form or as nested lists, and is answered in the same."""

    def __init__(self, settings: Settings) -> None:
        path = files.one_file(ENDINGS)
        runtime = files.package("onnxruntime", "onnxruntime")
        options = runtime.SessionOptions()
        # One thread answers a small request as fast as several do, and does not wait for another's processor.
        options.intra_op_num_threads = options.inter_op_num_threads = files.threads()
        self.session = files.read(
            path,
            lambda path: runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]),
        )
        state = runtime.capi.onnxruntime_pybind11_state
        self.refusals = (ValueError, TypeError, state.InvalidArgument)
        inputs = tuple(_tensor(one) for one in self.session.get_inputs())
        unknown = [one.name for one in inputs if not one.datatype]
        if unknown:
            raise StartError("model {}: the input {!r} is no tensor of a known type".format(path, unknown[0]))
        outputs = tuple(_tensor(one) for one in self.session.get_outputs())
        self._outputs = [one.name for one in outputs]
        super().__init__(Signature(inputs, outputs, "onnx_onnxv1"), settings.batching)
        replied = known(outputs)
        for one in self.session.get_outputs():
            if not one.type.startswith("tensor"):
                replied["properties"][one.name] = {"type": "array", "items": {"type": "object"}}
        self.contract = Contract(known(inputs), replied, "signature")

    def call(self, given: "dict[str, Any]") -> "dict[str, Any]":
        return dict(zip(self._outputs, self.session.run(self._outputs, given)))

    def read(self, call: Call) -> Work:
        given: Any = call.query_values() if call.method == "GET" else loads(call.body)
        if not isinstance(given, dict):
            raise BadRequestError("the body is not an object; send {{{}: [[...]]}}".format(listed(self.inputs)))
        given = dict(given)
        outputs = self.chosen(given.pop(FILTER, None) or given.pop("output_filter", None) or [])
        if "inputs" in given and "inputs" not in self.inputs:
            given = given["inputs"]
        elif list(given) == ["data"] and len(self.inputs) == 1:
            given = dict.fromkeys(self.inputs, given["data"])
        if not isinstance(given, dict):
            raise BadRequestError("'inputs' is not an object with {}".format(listed(self.inputs)))
        own = any(isinstance(value, dict) for value in given.values())
        found = {name: self._array(name, value) for name, value in given.items()}
        return self.work(
            arrays.fitted(found, tuple(self.inputs.values())),
            lambda result: _in_protos(result, outputs) if own else _in_lists(result, outputs),
        )

    def _array(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return tensorproto.read(name, value)
        one = self.inputs.get(name)
        if one is None:
            raise BadRequestError("the model has no input {!r}; it takes {}".format(name, listed(self.inputs)))
        return fitting(value, one)


def _in_lists(result: Any, outputs: "list[str]") -> Reply:
    return replies.of({name: result[name] for name in outputs})


def _in_protos(result: Any, outputs: "list[str]") -> Reply:
    written = {name: tensorproto.write(arrays.array(plain(result[name]))) for name in outputs}
    return replies.of({"outputs": written})


def _tensor(one: Any) -> Tensor:
    kind, _, inner = one.type.rstrip(")").partition("(")
    if kind != "tensor":
        # A classifier's list of {label: probability}: rows of probabilities to those who ask for tensors.
        inner = "float" if "float" in inner else ""
        return Tensor(one.name, "FP32" if inner else "", (-1, -1))
    shape = tuple(length if isinstance(length, int) and length >= 0 else -1 for length in one.shape)
    return Tensor(one.name, DATATYPES.get(inner, ""), shape)
