"""The page to try a request: it is whole in itself, runs only its own code, and shows data as data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest

SCRIPT = """
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType as Array

@input_schema("data", Array(np.array([[1.0, 2.0]])))
@output_schema(Array(np.array([3.0])))
def run(data, method="predict"):
    return data.sum(axis=1)
"""
NAME = "</script><script>alert(1)</script> & {service} {title}"
RAW = "from azureml.contrib.services.aml_request import rawhttp\n@rawhttp\ndef run(request):\n    return 1\n"


@pytest.fixture(scope="module")
def page(start: Any) -> Any:
    arguments = ("--docs", "--model-version", "sums:3", "--release", "sha256:12", "--prefix", "/api/sums")
    service = start(SCRIPT, *arguments, environment={"SERVICE_NAME": NAME}).ready()
    below, reply = service.ask("GET", "/api/sums/docs"), service.ask("GET", "/docs")
    assert (reply.status, below.body) == (200, reply.body)
    assert service.ask("POST", "/docs").status == 405
    return reply


def shown(page: Any) -> Any:
    (data,) = re.findall(r'<script type="application/json" id="service">(.*?)</script>', page.body.decode(), re.DOTALL)
    return json.loads(data)


def test_only_the_pages_own_code_may_run(page: Any) -> None:
    text = page.body.decode()
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    for name in ("script", "style"):
        (code,) = re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
        assert policy[name + "-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["content-type"] == "text/html; charset=utf-8"


def test_nothing_is_loaded_from_elsewhere(page: Any) -> None:
    assert not re.findall(r"(?:src|href)=|url\(|@import|https?://", page.body.decode())


def test_what_others_named_is_not_read_as_html(page: Any) -> None:
    text = page.body.decode()
    assert text.count("<script") == text.count("</script>") == 2
    escaped = "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; {service} {title}"
    assert text.count(escaped) == 2
    assert "alert(1)</script>" not in text


def test_it_says_what_is_served_and_has_requests_that_are_answered(page: Any, start: Any) -> None:
    about = shown(page)
    assert about["about"] == [["Version", "1.0"], ["Model", "sums:3"], ["Release", "sha256:12"]]
    assert about["contract"][0] == ["Takes data", "array of array(2) of number", ""]
    assert about["contract"][-1] == ["Gives", "array of number", "As declared by the entry script."]
    assert {path for _, path in about["links"]} >= {"openapi.json", "swagger.json", "metrics"}
    assert about["auth"] is about["raw"] is False
    service = start(SCRIPT, "--model-version", "sums:3").ready()
    assert [call["path"] for call in about["calls"]] == ["score"]
    assert about["calls"][0]["sample"] == '{"data":[[1.0,2.0]]}'
    assert service.score(about["calls"][0]["sample"].encode()).json == [3.0]
    assert service.ask("GET", "/docs").status == 404


def test_a_script_that_reads_requests_itself_may_be_sent_a_file(start: Any, tmp_path: Any) -> None:
    service = start(RAW, "--docs").ready()
    about = shown(service.ask("GET", "/docs"))
    assert about["raw"] is True
    assert about["calls"] == [{"path": "score", "sample": "", "json": False, "type": "text/plain"}]
