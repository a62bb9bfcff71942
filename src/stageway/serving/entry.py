"""Entry scripts: a file with ``init()``, which may be absent, and ``run(data)``, loaded by path as v1's driver did."""

from __future__ import annotations

import inspect
import json
import logging
import sys
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from stageway.contract import Contract
from stageway.serving import decorators, joining, raw, replies, rows, script_file, script_rows, script_tensors, standins
from stageway.serving.multidict import HeaderDict
from stageway.serving.replies import BadRequestError, loads
from stageway.serving.scorer import Alone, Call, ScoringError, StartError, Work, log_traceback, said, untensored

REQUEST_HEADERS = "request_headers"
MATRIX = "data"
"""The parameter that nearly all scripts for arrays have."""
WANTS_REQUEST = "'str' object has no attribute"
RAW_HINT = "run() of {} got the body as text; decorate it with @rawhttp where it should get the request"
COROUTINE = "run() of {} returned a coroutine, which nobody awaits; let it return asyncio.run(...) of that"

log = logging.getLogger(__name__)


class EntryScript(Alone):
    """The user's script, loaded and checked; ``init`` runs in ``start``."""

    def __init__(self, path: Path, *, joins: bool = False) -> None:
        self.name = path.name
        module = script_file.load(script_file.find(path))
        self._init = getattr(module, "init", None)
        run = getattr(module, "run", None)
        if not callable(run):
            raise StartError("{} has no function run; define run(data)".format(self.name))
        self._run: Callable[..., Any] = run
        self._code = getattr(inspect.unwrap(run), "__code__", None)
        self.declared = decorators.declared(run)
        self.raw = raw.asked_by(run)
        """Whether ``run`` takes the request itself, whatever its method."""
        self.contract = Contract() if self.declared is None else decorators.contract(run, self.declared)
        self._parameters = self._checked(inspect.signature(inspect.unwrap(run)))
        self._wants_headers = REQUEST_HEADERS in self._parameters
        self._names = [name for name in self._parameters if name != REQUEST_HEADERS]
        self._tensors = None if self.declared is None else script_tensors.of(run, self.declared)
        self.signature = None if self._tensors is None else self._tensors.signature
        self._columns = None if self.declared is None else self._matrix_columns()
        self._rows = script_rows.of(run, self.name, self._wants_headers) if joins else None
        self.records = None if self.declared is None else self._only_table()
        """The parameter that a bare list of records is for."""

    def start(self) -> None:
        if self._init is None:
            log.info("%s has no init(); nothing is loaded at the start", self.name)
            return
        try:
            self._init()
        except BaseException as error:
            way_out = standins.way_out(error)
            log_traceback(error)
            sentence = "init() of {} raised {}{}".format(self.name, said(error), way_out)
            raise StartError(sentence) from error

    def read(self, call: Call) -> Work:
        if self.raw:
            arguments = {self._names[0]: raw.request(call)}
        else:
            arguments = self._text(call) if self.declared is None else self._declared(call)
        if self._wants_headers:
            arguments[REQUEST_HEADERS] = HeaderDict(call.headers())
        return self._work(arguments)

    def take(self, tensors: "Mapping[str, Any]", outputs: "Sequence[str]") -> Work:
        if self._tensors is None:
            raise untensored(script_tensors.lacking(self.raw, self.declared))
        return self._work(self._tensors.arguments(tensors))

    def give(self, result: Any, outputs: "Sequence[str]") -> "dict[str, Any]":
        return super().give(result, outputs) if self._tensors is None else self._tensors.named(result)

    def join(self, parts: "list[Any]") -> Any:
        return super().join(parts) if self._rows is None else self._rows.join(parts)

    def split(self, result: Any, rows: "list[int]") -> "list[Any]":
        return joining.split(result, rows)

    def run(self, data: Any) -> Any:
        try:
            result = self._run(**data)
        except BadRequestError:
            raise
        except BaseException as error:
            if self.declared is not None and not self._reached(error):
                # The decorators turn JSON into arrays and tables before run is called.
                raise decorators.misfit(error) from None
            log_traceback(error)
            if not self.raw and isinstance(error, AttributeError) and str(error).startswith(WANTS_REQUEST):
                self._hint(RAW_HINT)
            raise ScoringError(said(error)) from error
        if inspect.iscoroutine(result):
            result.close()
            self._hint(COROUTINE)
            raise ScoringError(COROUTINE.format(self.name))
        return result

    def _hint(self, sentence: str) -> None:
        print("stageway-serving: {}".format(sentence.format(self.name)), file=sys.stderr, flush=True)

    def _work(self, arguments: "dict[str, Any]") -> Work:
        if self._rows is None:
            return Work(arguments, replies.of)
        arguments = self._rows.converted(arguments)
        key, count = self._rows.key(arguments)
        return Work(arguments, replies.of, key, count)

    def _text(self, call: Call) -> "dict[str, Any]":
        """Return the one argument of a plain ``run``: the body as text, or a GET's query as JSON text."""
        if call.method == "GET":
            return {self._names[0]: json.dumps(call.query_values())}
        try:
            return {self._names[0]: call.body.decode()}
        except UnicodeDecodeError:
            raise BadRequestError("the body is not UTF-8 text") from None

    def _declared(self, call: Call) -> "dict[str, Any]":
        """Return one argument for each parameter of a decorated ``run``; a missing one is named to the client."""
        if call.method == "GET":
            given: Any = call.query_values()
        elif call.content_type.partition(";")[0].strip().lower() != "application/json":
            kind = call.content_type or "nothing"
            raise BadRequestError("the content type is {!r}; send application/json".format(kind), status=415)
        else:
            found = None if self._columns is None else rows.matrix(call.body, self._columns)
            if found is not None:
                return {MATRIX: found[0] if found[0].flags.writeable else found[0].copy()}
            given = loads(call.body)
        if self.records is not None and isinstance(given, list) and given and isinstance(given[0], dict):
            given = {self.records: given}
        if not isinstance(given, dict):
            raise BadRequestError("the body is not a JSON object with {}".format(_listed(self._names)))
        arguments = {}
        for name in self._names:
            default = self._parameters[name].default
            if name in given:
                arguments[name] = given[name]
            elif default is inspect.Parameter.empty:
                raise BadRequestError("the parameter {!r} is missing".format(name))
            elif default is not None:
                arguments[name] = default
        return arguments

    def _only_table(self) -> Optional[str]:
        """Return the one parameter that a bare list of records can only be meant for, as Power BI sends it."""
        needed = [name for name in self._names if self._parameters[name].default is inspect.Parameter.empty]
        types = dict(decorators.parameter_types(self._run))
        sample = getattr(types.get(needed[0]), "sample_input", None) if len(needed) == 1 else None
        return needed[0] if hasattr(sample, "columns") else None

    def _matrix_columns(self) -> Optional[int]:
        """Return how many columns rows have, if a body is no more than an array of floats: it is read at once then."""
        kind = dict(decorators.parameter_types(self._run)).get(MATRIX)
        sample = getattr(kind, "sample_input", None)
        if self._names != [MATRIX] or str(getattr(sample, "dtype", "")) != "float64" or getattr(sample, "ndim", 0) != 2:
            return None
        enforced = getattr(kind, "enforce_shape", False) and getattr(kind, "enforce_column_type", False)
        return int(sample.shape[1]) if sample is not None and enforced else None

    def _reached(self, error: BaseException) -> bool:
        """Say whether the script's own ``run`` was entered before *error*."""
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code is self._code:
                return True
            trace = trace.tb_next
        return False

    def _checked(self, signature: inspect.Signature) -> "dict[str, inspect.Parameter]":
        """Return the parameters of ``run``, all of which can be given by name."""
        run = "run() of {}".format(self.name)
        if inspect.iscoroutinefunction(inspect.unwrap(self._run)):
            raise StartError("{} is async; define it with def".format(run))
        shapes = {
            inspect.Parameter.VAR_POSITIONAL: "*{}",
            inspect.Parameter.VAR_KEYWORD: "**{}",
            inspect.Parameter.POSITIONAL_ONLY: "the positional-only {}",
        }
        if self.raw and self.declared is not None:
            raise StartError("{} has both @rawhttp and @input_schema; keep one of them".format(run))
        parameters = dict(signature.parameters)
        for name, parameter in parameters.items():
            if parameter.kind in shapes:
                shape = shapes[parameter.kind].format(name)
                raise StartError("{} takes {}; give its parameters names, such as run(data)".format(run, shape))
        names = [name for name in parameters if name != REQUEST_HEADERS]
        if not names:
            raise StartError("{} takes no data; give it a parameter, such as run(data)".format(run))
        if self.declared is None:
            more = [name for name in names[1:] if parameters[name].default is inspect.Parameter.empty]
            if more:
                way_out = "take the request alone" if self.raw else "declare each with @input_schema, or take one"
                raise StartError("{} takes {} without a schema; {}".format(run, _listed(names), way_out))
        else:
            lacking = [name for name in self.declared["input"].get("properties", {}) if name not in parameters]
            if lacking:
                raise StartError("{} has a schema for {}, which it does not take".format(run, _listed(lacking)))
        return parameters


def _listed(names: "list[str]") -> str:
    return ", ".join(repr(name) for name in names)
