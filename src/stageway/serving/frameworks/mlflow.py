"""MLflow: one folder with an ``MLmodel`` that any tool wrote, called as the Python function that it says it is."""

from __future__ import annotations

import os
from typing import Any, Mapping, Optional, Sequence

from stageway.contract import Contract, Schema
from stageway.serving import replies
from stageway.serving import tensors as arrays
from stageway.serving.frameworks import files
from stageway.serving.replies import BadRequestError, Reply, loads
from stageway.serving.scorer import Alone, Call, ScoringError, Signature, StartError, Tensor, Work, log_traceback, said
from stageway.serving.settings import Settings

MARK = "MLmodel"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs", "data")
PREDICTIONS = "predictions"
DATATYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
KINDS = {"BOOL": "boolean", "BYTES": "string", "FP16": "number", "FP32": "number", "FP64": "number"}


class MLflow(Alone):
    """One model in MLflow's format: ``{"dataframe_records": [...]}`` is answered by ``{"predictions": [...]}``."""

    declared = None

    def __init__(self, settings: Settings) -> None:
        path = files.one_folder(MARK)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        pyfunc = files.package("mlflow.pyfunc", "mlflow or mlflow-skinny")
        self._forms = files.package("mlflow.utils.proto_json_utils", "mlflow or mlflow-skinny")
        self._refusal = files.package("mlflow.exceptions", "mlflow or mlflow-skinny").MlflowException
        self.model = files.read(path, lambda path: pyfunc.load_model(str(path)))
        self._schema = self.model.metadata.get_input_schema()
        self._names = list(self._schema.input_names()) if self._schema is not None else []
        self._columnar = self._schema is not None and not self._schema.is_tensor_spec()
        self._independent = settings.batching == "on"
        outputs = self.model.metadata.get_output_schema()
        self.signature: Optional[Signature] = _signature(self._schema, outputs)
        self.contract = self._known(outputs)

    def start(self) -> None:
        """Nothing more: the constructor has read the model."""

    def read(self, call: Call) -> Work:
        given: Any = call.query_values() if call.method == "GET" else loads(call.body)
        if isinstance(given, list) and given and isinstance(given[0], dict):
            given = {"dataframe_records": given}
        forms = [name for name in FORMS if name in given] if isinstance(given, dict) else []
        if len(forms) != 1:
            raise BadRequestError("one of {} is needed, as MLflow writes them".format(", ".join(map(repr, FORMS))))
        extra = [name for name in given if name not in (forms[0], "params")]
        if extra:
            raise BadRequestError("{!r} is not known beside {!r}; there is 'params'".format(extra[0], forms[0]))
        return self._work(self._data(forms[0], given[forms[0]]), given.get("params"))

    def take(self, tensors: "Mapping[str, Any]", outputs: "Sequence[str]") -> Work:
        if self.signature is None:
            return super().take(tensors, outputs)
        found = arrays.fitted(tensors, self.signature.inputs)
        if self._columnar:
            return self._work(arrays.table(found), None)
        return self._work(found if any(self._named()) else next(iter(found.values())), None)

    def give(self, result: Any, outputs: "Sequence[str]") -> "dict[str, Any]":
        if hasattr(result, "columns"):
            found = arrays.columns(result)
        elif isinstance(result, dict):
            found = {name: arrays.array(value) for name, value in result.items()}
        else:
            found = {outputs[0] if outputs else self._output(): arrays.array(result)}
        return {name: found[name] for name in outputs or found}

    def run(self, data: Any) -> Any:
        rows, params = data
        try:
            return self.model.predict(rows, params=params) if params else self.model.predict(rows)
        except self._refusal as error:
            if error.get_http_status_code() < 500:
                raise BadRequestError("the model refused the data: {}".format(said(error))) from None
            log_traceback(error)
            raise ScoringError(said(error)) from error
        except (ValueError, TypeError) as error:
            raise BadRequestError("the model refused the data: {}".format(said(error))) from None
        except BaseException as error:
            log_traceback(error)
            raise ScoringError(said(error)) from error

    def join(self, parts: "list[Any]") -> Any:
        import pandas as pd

        return pd.concat([part[0] for part in parts], ignore_index=True), None

    def split(self, result: Any, rows: "list[int]") -> "list[Any]":
        if not hasattr(result, "__len__") or isinstance(result, dict) or len(result) != sum(rows):
            raise ValueError("the model did not return one result for each row")
        part = result.iloc if hasattr(result, "iloc") else result
        found, at = [], 0
        for count in rows:
            found.append(part[at : at + count])
            at += count
        return found

    def _work(self, rows: Any, params: Any) -> Work:
        if params is not None and not isinstance(params, dict):
            raise BadRequestError("'params' is not an object")
        if not self._independent or params or not hasattr(rows, "dtypes") or not len(rows):
            return Work((rows, params), _written)
        kind = tuple(zip(map(str, rows.columns), map(str, rows.dtypes)))
        return Work((rows, None), _written, kind, len(rows))

    def _data(self, form: str, value: Any) -> Any:
        """Return what the model takes, as MLflow itself reads it; ``data`` holds rows or records like any table's."""
        asked = form
        if not form.startswith("dataframe") and arrays.room(value) > arrays.WIDEST:
            raise BadRequestError("{!r} holds a text that is too long to stand among so many values".format(form))
        try:
            if form in ("instances", "inputs"):
                return self._forms.parse_tf_serving_input({form: value}, self._schema)
            if form == "data":
                if not isinstance(value, list) or not value:
                    raise BadRequestError("'data' is not a list of rows")
                if not self._columnar and self._schema is not None:
                    return self._forms.parse_tf_serving_input({"inputs": value}, self._schema)
                records = isinstance(value[0], dict)
                form = "dataframe_records" if records else "dataframe_split"
                value = value if records else {"data": value, **({"columns": self._names} if self._names else {})}
            orient = "split" if form == "dataframe_split" else "records"
            return self._forms.dataframe_from_parsed_json(value, orient, self._schema)
        except self._refusal as error:
            raise BadRequestError("{!r} cannot be read: {}".format(asked, said(error))) from None

    def _named(self) -> "list[Any]":
        return [one for one in self._names if isinstance(one, str)]

    def _output(self) -> str:
        outputs = self.signature.outputs if self.signature is not None else ()
        return outputs[0].name if len(outputs) == 1 else PREDICTIONS

    def _known(self, outputs: Any) -> Contract:
        if self.signature is None:
            return Contract()
        rows = {one.name: _value(one, 1) for one in self.signature.inputs}
        request: Schema
        if self._columnar:
            needed = sorted(self._schema.required_input_names()) if self._named() else sorted(rows)
            row = {"type": "object", "properties": rows, "required": needed}
            request = _object("dataframe_records", {"type": "array", "items": row})
        elif self._named():
            whole = {one.name: _value(one, 0) for one in self.signature.inputs}
            request = _object("inputs", {"type": "object", "properties": whole, "required": sorted(whole)})
        else:
            request = _object("inputs", _value(self.signature.inputs[0], 0))
        one = self.signature.outputs[0] if len(self.signature.outputs) == 1 else None
        response = _object(PREDICTIONS, {"type": "array"}) if one is not None else None
        return Contract(request, response, "signature")


def _written(result: Any) -> Reply:
    return replies.of({PREDICTIONS: result})


def _signature(inputs: Any, outputs: Any) -> Optional[Signature]:
    """Return MLflow's schemas as tensors, a column as one; ``None`` where one of them cannot be said so."""
    if inputs is None:
        return None
    try:
        return Signature(
            _tensors(inputs, "inputs"), _tensors(outputs, PREDICTIONS) if outputs is not None else (), "mlflow"
        )
    except (KeyError, TypeError, AttributeError, StartError):
        return None


def _tensors(schema: Any, unnamed: str) -> "tuple[Tensor, ...]":
    found = []
    for one in schema.inputs:
        name = one.name if isinstance(one.name, str) else unnamed
        if schema.is_tensor_spec():
            datatype = arrays.datatype(one.type)
            if datatype is None:
                raise TypeError(name)
            found.append(Tensor(name, datatype, tuple(int(length) for length in one.shape)))
        else:
            found.append(Tensor(name, DATATYPES[one.type.name], (-1, 1)))
    if len({one.name for one in found}) != len(found):
        raise TypeError("columns without names")
    return tuple(found)


def _value(one: Tensor, skipped: int) -> Schema:
    """Return the schema of *one* without its first *skipped* lengths; a column is one value a row."""
    schema: Schema = {"type": KINDS.get(one.datatype, "integer")}
    shape = () if skipped and one.shape == (-1, 1) else one.shape[skipped:]
    for length in reversed(shape):
        schema = {"type": "array", "items": schema}
        if length >= 0:
            schema.update(minItems=length, maxItems=length)
    return schema


def _object(name: str, schema: Schema) -> Schema:
    return {"type": "object", "properties": {name: schema}, "required": [name]}
