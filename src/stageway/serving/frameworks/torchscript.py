"""TorchScript: one file of ``torch.jit.save``, called with its arguments by name."""

from __future__ import annotations

import warnings
from typing import Any

from stageway.contract import Contract, Schema
from stageway.serving import joining, replies
from stageway.serving import tensors as arrays
from stageway.serving.frameworks import files
from stageway.serving.frameworks.named import fitting, listed
from stageway.serving.replies import BadRequestError, Reply, loads
from stageway.serving.scorer import Alone, Call, ScoringError, StartError, Tensor, Work, log_traceback, said
from stageway.serving.settings import Settings

ENDINGS = (".pt", ".pth", ".ts", ".torchscript")
OUTPUT = "output"


class TorchScript(Alone):
    """One scripted or traced module. It says what its arguments are called, but neither types nor shapes."""

    declared = None

    def __init__(self, settings: Settings) -> None:
        path = files.one_file(ENDINGS)
        self._torch = files.package("torch", "torch")
        self._torch.set_num_threads(files.threads())
        warnings.filterwarnings("ignore", message=".*torch.jit.*is deprecated")
        self.model = files.read(path, lambda path: self._torch.jit.load(str(path), map_location="cpu")).eval()
        arguments = [one for one in self.model.forward.schema.arguments if one.name != "self"]
        strangers = [one for one in arguments if str(one.type) != "Tensor" and not one.has_default_value()]
        if strangers:
            sentence = "model {}: the argument {!r} is {}, and requests hold tensors; write an entry script"
            raise StartError(sentence.format(path, strangers[0].name, strangers[0].type))
        self.inputs = [one.name for one in arguments if str(one.type) == "Tensor"]
        self._needed = [one.name for one in arguments if not one.has_default_value()]
        self._number = _datatype(self._torch, self.model)
        self._independent = settings.batching == "on"
        properties: Schema = {name: {} for name in self.inputs}
        request = {"type": "object", "properties": properties, "required": sorted(self._needed)}
        self.contract = Contract(request, None, "signature")

    def start(self) -> None:
        """Nothing more: the constructor has read the model."""

    def read(self, call: Call) -> Work:
        given: Any = call.query_values() if call.method == "GET" else loads(call.body)
        if isinstance(given, dict) and "inputs" in given and "inputs" not in self.inputs:
            given = given["inputs"]
        if not isinstance(given, dict):
            raise BadRequestError("the body is not an object with {}".format(listed(self.inputs)))
        if "data" in given and "data" not in self.inputs and len(self.inputs) == 1:
            # The one argument without its name.
            given = {self.inputs[0]: given if set(given) - {"data"} else given["data"]}
        return self._work({name: self._array(name, value) for name, value in given.items()})

    def run(self, data: Any) -> Any:
        import numpy as np

        torch = self._torch
        try:
            with torch.inference_mode():
                given = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in data.items()}
                return _named(self.model(**given))
        except (ValueError, TypeError, RuntimeError) as error:
            # PyTorch raises the same for what is wrong with the data and with the model.
            log_traceback(error)
            raise BadRequestError("the model refused the data: {}".format(_why(error))) from None
        except BaseException as error:
            log_traceback(error)
            raise ScoringError(said(error)) from error

    def join(self, parts: "list[Any]") -> Any:
        return joining.join(parts)

    def split(self, result: Any, rows: "list[int]") -> "list[Any]":
        return joining.split(result, rows)

    def _work(self, given: "dict[str, Any]") -> Work:
        for name in given:
            if name not in self.inputs:
                raise BadRequestError("the model has no input {!r}; it takes {}".format(name, listed(self.inputs)))
        for name in self._needed:
            if name not in given:
                raise BadRequestError("the input {!r} is missing".format(name))
        lengths = {array.shape[0] if array.ndim else -1 for array in given.values()}
        rows = lengths.pop() if len(lengths) == 1 else -1
        if not self._independent or rows < 1:
            return Work(given, _written)
        kinds = sorted((name, array.dtype.char, array.shape[1:]) for name, array in given.items())
        return Work(given, _written, tuple(kinds), rows)

    def _array(self, name: str, value: Any) -> Any:
        """Return nested lists as an array of the type of the model's weights, or of the one that is written beside."""
        kind = self._number
        if isinstance(value, dict):
            kind, value = value.get("datatype", kind), value.get("data")
        if not isinstance(kind, str) or kind not in arrays.DTYPES or kind == "BYTES":
            raise BadRequestError("the input {!r} has the datatype {!r}, which is none of numbers".format(name, kind))
        return fitting(value, Tensor(name, kind, ()))


def _datatype(torch: Any, model: Any) -> str:
    """Return the type of the model's weights, which is most often that of its input."""
    kinds = [str(one.dtype).partition(".")[2] for one in model.parameters() if one.dtype.is_floating_point]
    return arrays.NAMES.get(kinds[0], "FP32") if kinds else "FP32"


def _named(result: Any) -> "dict[str, Any]":
    """Return the tensors of *result* as arrays with names: its own, or ``output``, or ``output_0`` and so on."""
    if isinstance(result, dict):
        return {str(name): value.numpy() for name, value in result.items()}
    if isinstance(result, (tuple, list)):
        return {"{}_{}".format(OUTPUT, number): value.numpy() for number, value in enumerate(result)}
    return {OUTPUT: result.numpy()}


def _written(result: Any) -> Reply:
    return replies.of(result)


def _why(error: BaseException) -> str:
    """Return the line that says what is wrong: TorchScript puts the model's own code before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(("RuntimeError: ", "ValueError: ", "TypeError: ")):
            return line[:300]
    return "{}: {}".format(type(error).__name__, lines[-1][:300] if lines else "")
