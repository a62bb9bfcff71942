"""Models of rows and columns: ``{"data": [[...]], "method": "predict"}`` is answered by ``{"predict": [...]}``."""

from __future__ import annotations

import warnings
from typing import Any, Mapping, Optional, Sequence

from stageway.contract import Contract, Schema
from stageway.serving import joining, replies
from stageway.serving import rows as quick
from stageway.serving import tensors as arrays
from stageway.serving.frameworks.columns import Column
from stageway.serving.replies import BadRequestError, Reply, loads
from stageway.serving.scorer import (
    Call,
    ScoringError,
    Signature,
    StartError,
    Tensor,
    Work,
    log_traceback,
    said,
    untensored,
)

MLFLOW = ("dataframe_split", "dataframe_records", "instances", "inputs")
NUMBERS = "fiub"
KINDS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "U": "string", "O": "string"}


class Tabular:
    """What scikit-learn, XGBoost and LightGBM have in common; work is ``(method, rows)``, rows an array or a table.

    *methods* are those that a request may name, the first is the default; *columns* is how many values a row has and
    *names* what they are called, where the model says so. Rows are scored together only if *independent*. A model with
    names gets tables, whose making costs more than most predictions, unless *nameless* rows are as good to it.
    """

    declared: "Optional[dict[str, Any]]" = None
    methods: "list[str]"
    columns: Optional[int]
    names: "list[str]"

    def __init__(
        self,
        methods: "list[str]",
        columns: Optional[int],
        names: "list[str]",
        platform: str,
        *,
        independent: bool,
        nameless: bool,
        known: "Sequence[Column]" = (),
    ) -> None:
        self.methods, self.columns, self.names = methods, columns, names
        self._independent, self._plain = independent, not names or nameless
        self.records = "data" if names else None
        """The parameter that a bare list of records is for."""
        results = {method: self._probe(method, known) for method in methods} if columns else {}
        table = self._described(known, any(result is not None for result in results.values()))
        results = {method: self.expected(method) if one is None else one for method, one in results.items()}
        self.contract = self._known(results, table)
        self.signature: Optional[Signature] = self._tensors(results, table, platform)

    def score(self, method: str, rows: Any) -> Any:
        """Call *method* of the model."""
        raise NotImplementedError

    def expected(self, method: str) -> Any:
        """Return an array like those that *method* gives for a row, where that is known without asking it."""
        return None

    def start(self) -> None:
        """Nothing more: the constructor has read the model."""

    def read(self, call: Call) -> Work:
        if self._plain and self.columns is not None and call.method != "GET":
            found = quick.matrix(call.body, self.columns)
            if found is not None and found[1] in self.methods:
                return self._work(found[1], found[0])
        given: Any = call.query_values() if call.method == "GET" else loads(call.body)
        if isinstance(given, list) and given and isinstance(given[0], dict):
            given = {"data": given}
        name = ""
        if isinstance(given, dict) and "data" not in given:
            form = next((one for one in MLFLOW if one in given), None)
            if form is not None and given.get("params"):
                raise BadRequestError("'params' are for models that are served with the framework MLflow")
            if form is not None:
                given, name = {**given, "data": _rows_of(form, given[form], self.names)}, "predictions"
        if not isinstance(given, dict) or "data" not in given:
            raise BadRequestError("the parameter 'data' is missing; send {\"data\": [[...]]}")
        method = given.get("method", self.methods[0])
        if method not in self.methods:
            raise BadRequestError("no method {!r}; the model has {}".format(method, ", ".join(self.methods)))
        return self._work(method, self._rows(given["data"]), name)

    def take(self, tensors: "Mapping[str, Any]", outputs: "Sequence[str]") -> Work:
        """Understand one array of rows, whatever its name, or one array for each column."""
        if self.signature is None:
            why = "what its columns hold" if self.columns else "how many columns it has"
            raise untensored("it does not say {}".format(why))
        if len(outputs) > 1:
            raise BadRequestError("the model gives one output at a time; ask for one of {}".format(", ".join(outputs)))
        method = outputs[0] if outputs else self.methods[0]
        if self.names and set(tensors) == set(self.names):
            return self._work(method, arrays.table({name: tensors[name] for name in self.names}))
        if len(tensors) != 1:
            wanted = ", ".join(self.names) or "one of rows"
            raise BadRequestError("the inputs are {}; the model takes {}".format(", ".join(tensors), wanted))
        rows = next(iter(tensors.values()))
        if rows.ndim != 2 or (self.columns is not None and rows.shape[1] != self.columns):
            sentence = "the input has the shape {}, the model takes [rows, {}]"
            raise BadRequestError(sentence.format(list(rows.shape), self.columns or "columns"))
        rows = arrays.text(rows) if rows.dtype.kind == "O" else rows
        plain = not self.names or (self._plain and rows.dtype.kind in NUMBERS)
        return self._work(method, rows if plain else self._table(rows.tolist()))

    def give(self, result: Any, outputs: "Sequence[str]") -> "dict[str, Any]":
        return {outputs[0] if outputs else self.methods[0]: arrays.array(result)}

    def run(self, data: Any) -> Any:
        method, rows = data
        try:
            result = self.score(method, rows)
        except (ValueError, TypeError) as error:
            raise BadRequestError("the model refused the data: {}".format(said(error))) from None
        except BaseException as error:
            log_traceback(error)
            raise ScoringError(said(error)) from error
        return result.toarray() if hasattr(result, "toarray") else result

    def join(self, parts: "list[Any]") -> Any:
        return parts[0][0], joining.join([rows for _, rows in parts])

    def split(self, result: Any, rows: "list[int]") -> "list[Any]":
        return joining.split(result, rows)

    def _work(self, method: str, rows: Any, name: str = "") -> Work:
        def write(result: Any) -> Reply:
            return replies.of({name or method: result})

        if not self._independent or isinstance(rows, list):
            return Work((method, rows), write)
        kind = tuple(map(str, rows.dtypes)) if hasattr(rows, "columns") else rows.dtype.char
        return Work((method, rows), write, (method, kind, rows.shape[1]), len(rows))

    def _rows(self, data: Any) -> Any:
        """Return what the model's methods take, once each row has as many columns as the model was trained on."""
        if not isinstance(data, list) or not data:
            raise BadRequestError("'data' is not a list of rows; send {\"data\": [[...]]}")
        if self.columns is None:
            return data
        for number, row in enumerate(data):
            if not isinstance(row, (list, dict)):
                sentence = "'data' is not a list of rows: row {} is {!r}, not a list of {} values"
                raise BadRequestError(sentence.format(number, row, self.columns))
            if isinstance(row, list) and len(row) != self.columns:
                sentence = "'data': row {} has {} values, the model takes {}"
                raise BadRequestError(sentence.format(number, len(row), self.columns))
        if not self.names:
            return _array(data)
        ordered = self._ordered(data)
        array = _array(ordered) if self._plain else None
        return array if array is not None and array.dtype.kind in NUMBERS else self._table(ordered)

    def _ordered(self, data: "list[Any]") -> "list[Any]":
        """Return rows of values, in the order of the model's columns, from rows of values or records."""
        found = []
        for number, row in enumerate(data):
            if isinstance(row, dict):
                lacking = [name for name in self.names if name not in row]
                if lacking:
                    raise BadRequestError("'data': row {} has no {!r}".format(number, lacking[0]))
                row = [row[name] for name in self.names]
            found.append(row)
        return found

    def _table(self, data: "list[Any]") -> Any:
        import pandas as pd

        return pd.DataFrame(data, columns=self.names)

    def _probe(self, method: str, known: "Sequence[Column]") -> Any:
        """Return what *method* makes of a row, to learn its shape and type; ``None`` if it takes none of those here.

        Where nothing is known of a column it is given 0, or where *method* refuses that, 1.
        """
        for number in (0.0, 1.0):
            row = [number if one.value is None else one.value for one in known] or [number] * int(self.columns or 0)
            result = self._tried(method, row)
            if result is not None:
                return result
        return None

    def _tried(self, method: str, row: "list[Any]") -> Any:
        import numpy as np

        worded = any(isinstance(value, str) for value in row)
        rows: "list[Any]" = []
        if not self.names or (self._plain and not worded):
            rows.append(np.array([row], dtype=object if worded else float))
        rows += [self._table([row])] if self.names else []
        found = []
        for one in rows:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    result = self.score(method, one)
                found.append(result.toarray() if hasattr(result, "toarray") else np.asarray(result))
            except BaseException:
                found.append(None)
        if len(found) == 2 and found[1] is not None and not np.array_equal(found[0], found[1]):
            # Rows without names are not as good to it, after all.
            self._plain = False
        return next((one for one in reversed(found) if one is not None), None)

    def _described(self, known: "Sequence[Column]", answered: bool) -> "list[Column]":
        """Return the columns: those of which nothing is *known* hold numbers, if the model *answered* to numbers.

        So do those of a model without names, which was trained on an array.
        """
        assumed = Column(0.0) if answered or not self.names else Column()
        if not known:
            return [assumed] * int(self.columns or 0)
        return [assumed if one.value is None and not one.unseen else one for one in known]

    def _known(self, results: "dict[str, Any]", table: "list[Column]") -> Contract:
        """Return what the model itself tells: the columns of a row, and what its methods return."""
        if self.columns is None:
            return Contract()
        row: Schema = {"type": "array", "minItems": len(table), "maxItems": len(table)}
        numeric = all(one.numeric for one in table)
        if self.names:
            # The form that is named first is the one that examples are made of.
            row["type"] = ["array", "object"] if numeric else ["object", "array"]
            row["properties"] = {name: one.schema for name, one in zip(self.names, table)}
            row["required"] = list(self.names)
        elif numeric:
            row["items"] = {"type": "number"}
        else:
            row["prefixItems"] = [one.schema for one in table]
        properties = {
            "data": {"type": "array", "items": row},
            "method": {"type": "string", "enum": list(self.methods)},
        }
        request: Schema = {"type": "object", "properties": properties, "required": ["data"]}
        replied = {method: _schema(result) for method, result in results.items()}
        return Contract(request, {"type": "object", "properties": replied} if replied else None, "signature")

    def _tensors(self, results: "dict[str, Any]", table: "list[Column]", platform: str) -> Optional[Signature]:
        """Return one tensor of rows where all columns are of one kind, else one for each, which then needs a name."""
        inputs: "tuple[Tensor, ...]" = ()
        if self.columns and all(one.numeric for one in table):
            inputs = (Tensor("data", "FP64", (-1, len(table))),)
        elif self.names and all(one.value is not None or one.unseen for one in table):
            inputs = tuple(Tensor(name, one.datatype, (-1, 1)) for name, one in zip(self.names, table))
        elif self.columns and not self.names and all(isinstance(one.value, str) for one in table):
            inputs = (Tensor("data", "BYTES", (-1, len(table))),)
        if not inputs:
            return None
        outputs = [
            Tensor(method, arrays.datatype(result.dtype) or "BYTES", (-1, *result.shape[1:]))
            for method, result in results.items()
            if result is not None
        ]
        return Signature(inputs, tuple(outputs), platform)


def methods_of(model: Any, known: "tuple[str, ...]", path: Any) -> "list[str]":
    """Return which of the *known* methods *model* has; one without any is no model."""
    found = [name for name in known if callable(getattr(model, name, None))]
    if not found:
        raise StartError("{} holds a {}, which has no method {}".format(path, type(model).__name__, known[0]))
    return found


def column_names(names: Any) -> "list[str]":
    """Return the *names* a model was trained with, if it was trained on a table and tables can be made here."""
    if names is None:
        return []
    try:
        import pandas  # noqa: F401
    except ImportError:
        return []
    return [str(name) for name in names]


def _schema(result: Any) -> Schema:
    """Return the schema of rows like those of *result*: as many as a client sends, each as long as it is."""
    if result is None:
        return {}
    schema: Schema = {"type": KINDS[result.dtype.kind]} if result.dtype.kind in KINDS else {}
    for length in reversed(result.shape[1:]):
        schema = {"type": "array", "items": schema, "minItems": int(length), "maxItems": int(length)}
    return {"type": "array", "items": schema}


def _rows_of(form: str, given: Any, names: "list[str]") -> Any:
    """Return the rows of a body in one of MLflow's forms: a table that names its columns as records, if names count."""
    if form == "dataframe_split":
        if not isinstance(given, dict) or not isinstance(given.get("data"), list):
            raise BadRequestError("'dataframe_split' is not an object with 'columns' and 'data'")
        columns, rows = given.get("columns"), given["data"]
        if not names or columns is None:
            return rows
        if not isinstance(columns, list) or any(not isinstance(row, list) or len(row) != len(columns) for row in rows):
            raise BadRequestError("'dataframe_split': a row has not as many values as there are 'columns'")
        return [dict(zip(map(str, columns), row)) for row in rows]
    if isinstance(given, dict):
        columns = list(given.values())
        if not columns or any(not isinstance(one, list) or len(one) != len(columns[0]) for one in columns):
            raise BadRequestError("{!r} does not hold columns of one length".format(form))
        return [dict(zip(given, row)) for row in zip(*columns)]
    return given


def _array(data: "list[Any]") -> Any:
    import numpy as np

    if isinstance(data[0], dict):
        raise BadRequestError("'data': row 0 is an object; the model has no column names, send a list of values")
    text = arrays.room(data) > 0
    try:
        array = np.asarray(data, dtype=object if text else None)
    except ValueError:
        raise BadRequestError("'data' is not a table: its rows differ in shape") from None
    if text or array.dtype.kind in "biuf":
        return array
    try:
        return np.asarray(data, dtype=float)
    except (TypeError, ValueError, OverflowError):
        return np.asarray(data, dtype=object)
