"""The variables that v1's images set: where the script, its sources and its models are, and packages of v1 itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import os
import helper
from azureml.core.model import Model

def init():
    global told
    here = [helper.NAME, open(os.path.join(ROOT, "source_directory/extra.json")).read()]
    told = here + [os.getenv("AZUREML_MODEL_DIR").split("/")[-2], open(Model.get_model_path("m")).read()]

def run(data):
    return told
"""


@pytest.mark.parametrize("inside", [True, False], ids=["in the app root", "elsewhere"])
def test_a_script_of_a_source_directory_finds_its_files(start: Any, tmp_path: Path, inside: bool) -> None:
    sources, models = tmp_path / "source_directory", tmp_path / "azureml-models" / "m" / "7"
    (sources / "deep").mkdir(parents=True)
    models.mkdir(parents=True)
    root = "." if inside else str(tmp_path)
    (sources / "deep" / "score.py").write_text(f"ROOT = {root!r}\n" + SCRIPT)
    (sources / "helper.py").write_text("NAME = 'helped'\n")
    (sources / "extra.json").write_text("{}")
    (models / "m.txt").write_text("weights")
    environment = {
        "AML_APP_ROOT": str(tmp_path),
        "AZUREML_SOURCE_DIRECTORY": "source_directory",
        "AZUREML_ENTRY_SCRIPT": "deep/score.py",
        "AZUREML_MODEL_DIR": "azureml-models/m/7" if inside else str(models),
        "SERVICE_NAME": "myservice",
        "WORKER_COUNT": "2",
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    service = start(None, folder=tmp_path if inside else elsewhere, environment=environment).ready()
    assert service.score({}).json == ["helped", "{}", "m", "weights"]
    assert service.ask("GET", "/swagger.json").json["info"]["title"] == "myservice"
    assert any("2 workers" in line for line in service.lines)


SERVICES = {
    "__init__.py": "",
    "aml_request.py": """
import flask
_rawHttpRequested = False

def rawhttp(run):
    global _rawHttpRequested
    _rawHttpRequested = True
    return run

class AMLRequest(flask.Request):
    pass
""",
    "aml_response.py": """
import flask

class AMLResponse(flask.Response):
    def __init__(self, message, status_code, failed=False):
        super().__init__(message, status_code)
        self.headers["x-ms-run-function-failed"] = str(failed)
""",
}
RAW = """
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

@rawhttp
def run(request):
    if "note" in request.form:
        response = AMLResponse(request.form["note"], 202)
        response.set_cookie("a", "1")
        response.headers.add("Set-Cookie", "b=2")
        return response
    return AMLResponse(type(request).__module__ + request.full_path, 500, failed=True)
"""


def test_packages_of_v1_that_are_installed_are_used(start: Any, tmp_path: Path) -> None:
    services = tmp_path / "azureml" / "contrib" / "services"
    services.mkdir(parents=True)
    for name, text in SERVICES.items():
        (services / name).write_text(text)
    service = start(RAW, folder=tmp_path).ready()
    with service.client() as client:
        form = {"content-type": "application/x-www-form-urlencoded", "x-request-id": "7"}
        client.request("POST", "/score", b"note=h%C3%A9", form)
        answer = client.getresponse()
        assert (answer.status, answer.read().decode()) == (202, "hé")
    assert answer.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"]
    reply = service.ask("GET", "/score?x=1")
    assert (reply.status, reply.body) == (500, b"flask.wrappers/score?x=1")
    assert reply.headers["x-ms-run-function-failed"] == "True"


def test_raw_http_and_declared_parameters_are_refused_together(start: Any) -> None:
    script = (
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType\n"
        "from inference_schema.schema_decorators import input_schema\n"
        "@rawhttp\n@input_schema('data', StandardPythonParameterType(1))\ndef run(data):\n    return data\n"
    )
    service = start(script)
    assert service.ended() == 1
    assert "run() of score.py has both @rawhttp and @input_schema; keep one of them" in service.lines[-1]


def test_an_undecorated_script_is_described_as_taking_anything(start: Any) -> None:
    service = start("def run(data):\n    return json.loads(data)\nimport json\n").ready()
    assert service.score([1]).json == [1]
    assert json.loads(service.ask("GET", "/swagger.json").body)["definitions"]["ServiceInput"]["type"] == "object"
