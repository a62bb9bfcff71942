"""Requests that a program makes up from our own description: none ends in a server error or is answered otherwise."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from stageway.serving import auth

HEAD = """
import numpy as np, pandas as pd
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType as Array
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType as Table
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as Plain
"""
SCRIPTS = {
    "array": HEAD
    + """
@input_schema("data", Array(np.array([[1.0, 2.0]])))
@input_schema("counts", Array(np.array([1])))
@output_schema(Array(np.array([3.0])))
def run(data, counts):
    with np.errstate(all="ignore"):
        return data.sum(axis=1) + counts.sum()
""",
    "table": HEAD
    + """
@input_schema("data", Table(pd.DataFrame({"name": ["a"], "age": [36], "weight": [1.5]})))
@input_schema("word", Plain("x"), optional=True)
@output_schema(Table(pd.DataFrame({"name": ["a"], "old": [True]})))
def run(data, word="x"):
    return pd.DataFrame({"name": data["name"].astype(str) + str(word), "old": data["age"] > 40})
""",
    "plain": """
def run(data):
    return {"characters": len(data)}
""",
    "raw": """
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

@rawhttp
def run(request):
    return AMLResponse(request.get_data() if request.method == "POST" else request.full_path, 200)
""",
}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)


def examine(port: int, folder: Path, *more: str) -> None:
    """Run the public program, the same requests each time, against the server on *port*."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"http://127.0.0.1:{port}/openapi.json",
            *("--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "40"),
            "--generation-deterministic",
            *("--suppress-health-check", "all"),
            "--continue-on-failure",
            "--no-color",
            *more,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "generated" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SCRIPTS])
def test_scripts_keep_to_their_description(start: Any, tmp_path: Path, kind: str) -> None:
    service = start(SCRIPTS[kind], "--port", "0", "--model-version", kind + ":1", "--docs").ready()
    examine(service.port, tmp_path)
    assert not [line for line in service.lines if "Traceback" in line]


@pytest.mark.slow
def test_keys_are_asked_for_where_the_description_says_so(start: Any, tmp_path: Path) -> None:
    keys = auth.make(tmp_path / "keys.json")
    service = start(SCRIPTS["array"], "--port", "0", "--auth", str(tmp_path / "keys.json")).ready()
    examine(service.port, tmp_path, "--header", f"Authorization: Bearer {keys['primary']}")


@pytest.mark.slow
def test_a_model_without_a_script_keeps_to_its_description(start: Any, tmp_path: Path) -> None:
    model = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0], [0.2, 1.0], [1.0, 0.1]], [0, 1, 0, 1])
    joblib.dump(model, tmp_path / "model.joblib")
    environment = {"AZUREML_MODEL_DIR": str(tmp_path)}
    service = start(None, "--framework", "ScikitLearn", "--port", "0", environment=environment).ready()
    (tmp_path / "work").mkdir()
    examine(service.port, tmp_path / "work")
    assert not [line for line in service.lines if "Traceback" in line]


ODD: dict[str, tuple[bytes, bytes, int]] = {
    "a method of its own": (b"FOO /score", b"", 405),
    "a method in small letters": (b"get /score", b"", 405),
    "trace": (b"TRACE /score", b"", 405),
    "all of the server": (b"OPTIONS *", b"", 404),
    "a path without characters": (b"GET /%00%ff", b"", 404),
    "a path that is not ASCII": (b"GET /\xc3\xbc", b"", 404),
    "a path twice": (b"GET //score", b"", 404),
    "a long path": (b"GET /" + b"a" * 20_000, b"", 404),
    "a whole address": (b"GET http://x/livez", b"", 200),
    "a query that is not UTF-8": (b"GET /score?data=%ff&%00=1", b"", 200),
    "many parameters": (b"GET /score?" + b"&".join(b"a%d=1" % number for number in range(3000)), b"", 200),
    "a version that is not UTF-8": (b"GET /swagger.json?version=%ff", b"", 404),
    "two versions": (b"GET /swagger.json?version=3&version=x", b"", 404),
    "a content type that is not ASCII": (b"POST /score", b"Content-Type: \xff\r\n", 200),
    "an id that is not ASCII": (b"POST /score", b"x-request-id: \xff\xfe\r\nTraceId: \xe9\r\n", 200),
    "an origin that is not ASCII": (b"POST /score", b"Origin: \xff\r\n", 200),
    "an encoding that is not ASCII": (b"POST /v2/models/plain/infer", b"Content-Encoding: \xff\r\n", 404),
    "many headers": (b"POST /score", b"".join(b"x%d: y\r\n" % number for number in range(300)), 431),
}


@pytest.fixture(scope="module")
def plain(start: Any) -> Any:
    return start(SCRIPTS["plain"], "--port", "0", "--model-version", "plain:1").ready()


@pytest.mark.parametrize("case", ODD)
def test_odd_requests_have_an_ordinary_answer(plain: Any, case: str) -> None:
    line, headers, status = ODD[case]
    with socket.create_connection(("127.0.0.1", plain.port), timeout=60) as connection:
        closing = b"Host: x\r\nConnection: close\r\nContent-Length: 2\r\n"
        connection.sendall(line + b" HTTP/1.1\r\n" + closing + headers + b"\r\n{}")
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.split(b" ", 2)[1] == str(status).encode(), reply[:300]
    assert plain.process.poll() is None
