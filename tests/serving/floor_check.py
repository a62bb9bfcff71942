"""Serve and ask, on whatever Python runs this: ``PYTHONPATH=src python tests/serving/floor_check.py``.

The serving layer goes into images with old Pythons, which the engine and its tests do not support; this file needs
the serving layer's own requirements only. It says what it asked, and ends with 1 at the first reply that is not as
promised.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PATIENCE = 60.0
PLAIN = """
import json, os

def init():
    global factor
    factor = 2

def run(data):
    return {"doubled": [factor * value for value in json.loads(data)["data"]]}
"""
RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse
from azureml.core.model import Model

@rawhttp
def run(request):
    return AMLResponse(request.get_data(False)[::-1], 201, {"x-path": Model.get_model_path("m")})
"""
DECLARED = """
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

@input_schema("data", StandardPythonParameterType([1.5, 2.5]))
@output_schema(StandardPythonParameterType({"sum": 4.0}))
def run(data):
    return {"sum": sum(data)}
"""


def main() -> None:
    """Ask three services; each is a process of its own, as in an image."""
    print("Python {}.{}.{}".format(*sys.version_info[:3]))
    with Service(PLAIN, "--access-log", "--log-format", "json") as service:
        service.expect("GET", "/", 200, b"Healthy")
        service.expect("POST", "/score", 200, {"doubled": [2, 5.0]}, b'{"data": [1, 2.5]}')
        service.expect("POST", "/score", 500, None, b'{"nothing": 1}')
        service.expect("GET", "/readyz", 200, None)
        service.expect("GET", "/nowhere", 404, None)
        service.expect("GET", "/openapi.json", 200, None)
        metrics = service.expect("GET", "/metrics", 200, None).decode()
        assert 'stageway_requests_total{path="/score",status="200"} 1.0' in metrics, metrics
    with Service(RAW) as service:
        service.expect("POST", "/score", 201, b"\x00cba", b"abc\x00")
    with Service(DECLARED, "--workers", "2") as service:
        service.expect("POST", "/score", 200, {"sum": 3.0}, b'{"data": [1.0, 2.0]}', "application/json")
        service.expect("POST", "/score", 400, None, b'{"other": 1}', "application/json")
        swagger = json.loads(service.expect("GET", "/swagger.json", 200, None))
        assert swagger["definitions"]["ServiceInput"]["properties"]["data"]["type"] == "array", swagger


class Service:
    """One server on a free port, with a model file below its app root."""

    def __init__(self, script: str, *arguments: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        (root / "score.py").write_text(script)
        (root / "azureml-models/m/1").mkdir(parents=True)
        (root / "azureml-models/m/1/model.bin").write_bytes(b"m")
        self.log = root / "log"
        command = [sys.executable, "-m", "stageway.serving", "--port", "0", "--entry-script", "score.py", *arguments]
        environment = dict(os.environ, AZUREML_MODEL_DIR="azureml-models/m/1")
        environment["PYTHONPATH"] = str(Path(os.environ["PYTHONPATH"]).resolve())
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=str(root), env=environment, stdout=log, stderr=log)

    def __enter__(self) -> Service:
        end = time.monotonic() + PATIENCE
        while True:
            said = self.log.read_text()
            found = re.search(r"ready on (http://[0-9.]+:\d+)", said)
            if found:
                self.address = found[1]
                return self
            assert self.process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            print(self.log.read_text())
        self.process.terminate()
        ended = self.process.wait(PATIENCE)
        self.folder.cleanup()
        assert error is not None or ended == 0, f"it ended with {ended}"

    def expect(
        self, method: str, path: str, status: int, body: Any, sent: bytes | None = None, kind: str = "text/plain"
    ) -> bytes:
        """Ask, compare (JSON with JSON, bytes with bytes, ``None`` with nothing) and return the reply's body."""
        request = urllib.request.Request(self.address + path, sent, {"content-type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                found, got = reply.status, bytes(reply.read())
        except urllib.error.HTTPError as refusal:
            found, got = refusal.code, refusal.read()
        print(f"{method} {path} {found}")
        assert found == status, (found, got)
        if body is not None:
            assert (got if isinstance(body, bytes) else json.loads(got)) == body, got
        return got


if __name__ == "__main__":
    main()
