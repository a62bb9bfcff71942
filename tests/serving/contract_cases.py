"""What a client of v1 sees, as a table: for each kind of script, requests and what is answered to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
PARTS = {"content-type": "multipart/form-data; boundary=B"}
FILES = (
    b'--B\r\nContent-Disposition: form-data; name="note"\r\n\r\nh\xc3\xa9llo\r\n'
    b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b"\x89PNG\r\n\r\n--\x00\xff\r\n--B--\r\n"
)
ANY: Any = object()


@dataclass(frozen=True)
class Case:
    """One request; *body* is bytes, or is sent as JSON. ``None`` for an expected header: it is not there."""

    name: str
    method: str = "POST"
    path: str = "/score"
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    answer: Any = ANY
    sent_back: Mapping[str, str | None] = field(default_factory=dict)


FAILED = {"x-ms-run-function-failed": "True"}
FINE = {"x-ms-run-function-failed": "False", "content-type": "application/json"}

PLAIN = """
import sys, decimal, datetime
import numpy as np

def init():
    print("This is init()")

def run(anything, request_headers):
    if anything.startswith("print"):
        print("x" * 100 * int(anything.split()[1]))
        return "printed"
    known = {"text": anything, "none": None, "nan": [float("nan"), float("inf")], "array": np.arange(2),
             "decimal": decimal.Decimal("0.5"), "day": datetime.date(2020, 1, 2), "big": 2 ** 70, "tuple": (1, "a")}
    if anything in known:
        return known[anything]
    if anything == "header":
        return request_headers["X-Any"]
    if anything == "exit":
        sys.exit(0)
    if anything == "interrupt":
        raise KeyboardInterrupt("secret")
    if anything == "base":
        raise BaseException("secret")
    if anything == "error":
        raise RuntimeError("secret")
    return {"bytes": b"x", "object": object(), "set": {1}, "complex": 1j}.get(anything, anything)
"""

PLAIN_CASES = [
    Case("health", "GET", "/", answer=b"Healthy", sent_back={"content-type": "text/plain; charset=utf-8"}),
    Case("text in, JSON out", body=b"hello", answer="hello", sent_back=FINE),
    Case("no content type is needed", body=b"[1, 2]", answer="[1, 2]"),
    Case("an empty body", answer=""),
    Case("a query is JSON text", "GET", "/score?x=1&y=a&y=[2]&z=", answer='{"x": 1, "y": ["a", [2]], "z": ""}'),
    Case("no query", "GET", answer="{}"),
    Case("none is an empty object", body=b"none", answer={}),
    Case("what is no number is null", body=b"nan", answer=[None, None]),
    Case("an array", body=b"array", answer=[0, 1]),
    Case("a decimal", body=b"decimal", answer=0.5),
    Case("a date", body=b"day", answer="2020-01-02"),
    Case("a number over 64 bits", body=b"big", answer=2**70),
    Case("a tuple", body=b"tuple", answer=[1, "a"]),
    Case("headers reach the script", body=b"header", headers={"x-any": "v"}, answer="v"),
    Case("bytes are not JSON", body=b"bytes", status=500, sent_back=FAILED),
    Case("an object is not JSON", body=b"object", status=500, sent_back=FAILED),
    Case("a complex number is not JSON", body=b"complex", status=500, sent_back=FAILED),
    Case("an error", body=b"error", status=500, sent_back=FAILED),
    Case("the script ends the program", body=b"exit", status=500, sent_back=FAILED),
    Case("the script interrupts", body=b"interrupt", status=500, sent_back=FAILED),
    Case("the script raises the root of errors", body=b"base", status=500, sent_back=FAILED),
    Case("the script prints a lot", body=b"print 20000", answer="printed"),
    Case("not text", body=b"\xff\xfe", status=400, answer={"message": "the body is not UTF-8 text"}),
    Case("options", "OPTIONS", answer=b"", sent_back={"allow": "POST, GET, OPTIONS"}),
    *[
        Case(f"{method} is no method of a plain script", method, status=405, sent_back={"allow": "POST, GET, OPTIONS"})
        for method in ("HEAD", "PUT", "DELETE", "PATCH")
    ],
    Case("an unknown path", "GET", "/nothing", status=404),
    Case("no cross-origin headers of our own", body=b"x", headers={"origin": "http://a"}, sent_back={"vary": None}),
]

DECLARED = """
import datetime
import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

sample = {"rows": NumpyParameterType(np.array([[1.0, 2.0]])), "tag": StandardPythonParameterType("x")}

@input_schema("table", PandasParameterType(pd.DataFrame({"a": [1], "b": ["x"]})))
@input_schema("nested", StandardPythonParameterType(sample), optional=True)
@input_schema("when", StandardPythonParameterType(datetime.datetime(2020, 1, 2)), optional=True)
@output_schema(StandardPythonParameterType({"n": 1}))
def run(table, nested=None, when=None):
    if len(table) == 3:
        raise ValueError("secret")
    found = {"type": str(table["a"].dtype), "a": table["a"].tolist()}
    if nested is not None:
        found["nested"] = [nested["rows"].sum(), nested["tag"]]
    if when is not None:
        found["year"] = when.year
    return found
"""
RECORD = {"a": 1, "b": "y"}
FOUND = {"type": "int64", "a": [1]}

DECLARED_CASES = [
    Case("a table", body={"table": [RECORD]}, headers=JSON, answer=FOUND, sent_back=FINE),
    Case("records alone, as Power BI sends them", body=[RECORD, RECORD], headers=JSON, answer={**FOUND, "a": [1, 1]}),
    Case("a charset", body={"table": [RECORD]}, headers={"content-type": "Application/JSON; charset=utf-8"}),
    Case(
        "types inside types",
        body={"table": [RECORD], "nested": {"rows": [[1, 2], [3, 4]], "tag": "t"}, "when": "2021-01-02T00:00:00"},
        headers=JSON,
        answer={**FOUND, "nested": [10.0, "t"], "year": 2021},
    ),
    Case("one more name", body={"table": [RECORD], "more": 1}, headers=JSON, answer=FOUND),
    Case("a query", "GET", '/score?table=[{"a":1,"b":"y"}]'.replace('"', "%22"), answer=FOUND),
    Case("no content type", body=b'{"table": []}', status=415),
    Case("another content type", body=b'{"table": []}', headers=FORM, status=415),
    Case("an empty body", headers=JSON, status=400),
    Case("not JSON", body=b'{"table": ', headers=JSON, status=400),
    Case("not an object", body=b'"text"', headers=JSON, status=400),
    Case("a list that is not of records", body=[[1, "y"]], headers=JSON, status=400),
    Case("a missing parameter", body={"nested": {}}, headers=JSON, status=400),
    Case("a missing column", body={"table": [{"a": 1}]}, headers=JSON, status=400),
    Case("an extra column", body={"table": [{**RECORD, "c": 1}]}, headers=JSON, status=400),
    Case("a wrong type", body={"table": [{"a": "one", "b": "y"}]}, headers=JSON, status=400),
    Case("a wrong type inside", body={"table": [RECORD], "nested": {"rows": 1}}, headers=JSON, status=400),
    Case("nothing where a table is", body={"table": None}, headers=JSON, status=400),
    Case("an error in the script", body={"table": [RECORD] * 3}, headers=JSON, status=500, sent_back=FAILED),
]

RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

@rawhttp
def run(request):
    assert isinstance(request, AMLRequest)
    what = request.args.get("what", "seen")
    if what == "seen":
        return {"method": request.method, "path": request.full_path, "type": request.mimetype,
                "remote": request.remote_addr, "any": request.headers.get("X-ANY"), "bytes": len(request.get_data())}
    if what == "echo":
        return AMLResponse(request.get_data(), 200, {"Content-Type": "image/png"})
    if what == "text":
        return AMLResponse(request.get_data(as_text=True), 201)
    if what == "json":
        return request.get_json()
    if what == "force":
        return request.get_json(force=True)
    if what == "form":
        fields = request.form.to_dict(flat=False)
        return {"fields": fields, "rest": len(request.data), "args": request.args.getlist("n")}
    if what == "files":
        image = request.files["image"]
        return [request.form["note"], image.filename, image.content_type, list(image.read())]
    if what == "cookies":
        response = AMLResponse("", 200)
        response.set_cookie("seen", request.cookies["last"], httponly=True)
        return response
    if what == "headers":
        response = AMLResponse("x", 202, {"Access-Control-Allow-Methods": "GET, POST", "X-One": "1"})
        response.headers["X-One"] = 2
        response.headers["Access-Control-Allow-Origin"] = "http://page"
        return response
    if what == "written":
        return AMLResponse({"a": [1.5]}, 200, {}, True)
    if what == "failed":
        return AMLResponse("no luck", 502, {}, False, True)
    if what == "lacking":
        return request.form["lacking"]
    return {"dict": AMLResponse, "status": AMLResponse("x", 42), "split": AMLResponse("x", 200, {"X": "a\\nB: c"}),
            "plain": "text", "none": None}[what]
"""
HTML = {"content-type": "text/html; charset=utf-8"}


def _seen(method: str, body: int = 0, **more: Any) -> Any:
    known = {"method": method, "path": "/score?", "type": "", "remote": None, "any": None, "bytes": body}
    return {**known, **more}


RAW_CASES = [
    Case("post", body=b"\x00\xff", answer=_seen("POST", 2), sent_back=FINE),
    Case("get", "GET", "/score?x=%20", answer=_seen("GET", path="/score?x=%20")),
    Case("options", "OPTIONS", answer=_seen("OPTIONS")),
    Case("head", "HEAD", answer=b"", sent_back=FINE),
    Case("put", "PUT", status=405, sent_back={"allow": "POST, GET, OPTIONS, HEAD"}),
    Case("headers in any case", headers={"x-any": "v"}, answer=_seen("POST", any="v")),
    Case("bytes", path="/score?what=echo", body=bytes(range(256)), answer=bytes(range(256))),
    Case("their type", path="/score?what=echo", sent_back={"content-type": "image/png"}),
    Case("text", path="/score?what=text", body="é".encode(), status=201, answer="é".encode(), sent_back=HTML),
    Case("JSON", path="/score?what=json", body={"a": 1}, headers=JSON, answer={"a": 1}),
    Case("JSON of no type", path="/score?what=json", body={"a": 1}, answer={}),
    Case("JSON by force", path="/score?what=force", body={"a": 1}, answer={"a": 1}),
    Case("no JSON", path="/score?what=force", body=b"{", status=400),
    Case(
        "a form",
        path="/score?what=form&n=1&n=2",
        body=b"a=1&b=%C3%A9+x&a=2",
        headers=FORM,
        answer={"fields": {"a": ["1", "2"], "b": ["é x"]}, "rest": 0, "args": ["1", "2"]},
    ),
    Case(
        "files",
        path="/score?what=files",
        body=FILES,
        headers=PARTS,
        answer=["héllo", "a.png", "image/png", list(b"\x89PNG\r\n\r\n--\x00\xff")],
    ),
    Case("files that are cut off", path="/score?what=files", body=FILES[:-8], headers=PARTS, status=400),
    Case(
        "cookies",
        path="/score?what=cookies",
        headers={"cookie": "last=today; other=1"},
        sent_back={"set-cookie": "seen=today; HttpOnly; Path=/"},
    ),
    Case(
        "headers out",
        path="/score?what=headers",
        status=202,
        answer=b"x",
        sent_back={"x-one": "2", "access-control-allow-origin": "http://page", "access-control-allow-methods": "POST"},
    ),
    Case("JSON out", path="/score?what=written", answer={"a": [1.5]}, sent_back=FINE),
    Case("failed, it says", path="/score?what=failed", status=502, answer=b"no luck", sent_back=FAILED),
    Case("a field that is not there", path="/score?what=lacking", status=500, sent_back=FAILED),
    Case("a class", path="/score?what=dict", status=500, sent_back=FAILED),
    Case("a status that is none", path="/score?what=status", status=500, sent_back=FAILED),
    Case("a header with a line break", path="/score?what=split", status=500, sent_back={**FAILED, "b": None}),
    Case("any value", path="/score?what=plain", answer="text"),
    Case("none", path="/score?what=none", answer={}),
]

ORIGIN = {"origin": "http://shop.example"}
PREFLIGHT = {**ORIGIN, "access-control-request-method": "POST"}
ALLOWED = {"access-control-allow-origin": "http://shop.example", "vary": "Origin"}
REFUSED = {"access-control-allow-origin": None, "vary": "Origin"}
BELOW = "/api/v1/service/myservice"

PLACED = "def run(data):\n    return data\n"
PLACED_CASES = [
    Case("below the prefix", path=BELOW + "/score", body=b"x", answer="x"),
    Case("health below the prefix", "GET", BELOW + "/", answer=b"Healthy"),
    Case("the description below the prefix", "GET", BELOW + "/swagger.json"),
    Case("without the prefix", body=b"x", answer="x"),
    Case("health without it", "GET", "/", answer=b"Healthy"),
    Case("another prefix", path="/api/v1/service/other/score", status=404),
    Case("an origin that may", body=b"x", headers=ORIGIN, sent_back=ALLOWED),
    Case("an origin that may not", body=b"x", headers={"origin": "http://evil.example"}, sent_back=REFUSED),
    Case("no origin", body=b"x", sent_back=REFUSED),
    Case("an error, too", "PUT", headers=ORIGIN, status=405, sent_back=ALLOWED),
    Case("credentials never", headers=ORIGIN, sent_back={"access-control-allow-credentials": None}),
    Case(
        "a browser asks first",
        "OPTIONS",
        headers={**PREFLIGHT, "access-control-request-headers": "authorization, content-type"},
        answer=b"",
        sent_back={
            **ALLOWED,
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": "authorization, content-type",
        },
    ),
    Case(
        "a browser asks from elsewhere",
        "OPTIONS",
        headers={**PREFLIGHT, "origin": "http://evil.example"},
        sent_back={**REFUSED, "access-control-allow-methods": None},
    ),
    Case("a browser asks below the prefix", "OPTIONS", BELOW + "/score", headers=PREFLIGHT, sent_back=ALLOWED),
]
