"""Scripts with ``batching: on``: what is joined, what is not, and that each request gets what it gets alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

SCRIPT = """
import threading, time
import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema

calls = []

@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("table", PandasParameterType(pd.DataFrame({"a": [1]})), optional=True)
@input_schema("how", StandardPythonParameterType("sum"), optional=True)
def run(data, table=None, how="sum"):
    if how == "calls":
        return calls
    calls.append(len(data))
    if calls == [1]:
        # The first call waits until others have come in behind it.
        time.sleep(0.5)
    if (data == 13).any():
        raise ValueError("an unlucky row")
    if how == "total":
        return float(data.sum())
    added = 0 if table is None else table["a"].to_numpy()
    return getattr(data, how)(axis=1) + added
"""


@pytest.fixture(scope="module")
def service(start: Any) -> Any:
    return start(SCRIPT, "--batching", "on").ready()


def test_requests_that_wait_are_one_call_and_each_gets_its_own(service: Any) -> None:
    asked: list[tuple[dict[str, Any], int, Any]] = [
        *[({"data": [[n, 1]] * (1 + n % 3)}, 200, [n + 1.0] * (1 + n % 3)) for n in range(20, 40)],
        *[({"data": [[n, 1]], "table": [{"a": 5}]}, 200, [n + 6.0]) for n in range(20, 25)],
        *[({"data": [[n, 2]], "how": "prod"}, 200, [n * 2.0]) for n in range(20, 25)],
        *[({"data": [[n, 2]], "how": "total"}, 200, n + 2.0) for n in range(20, 25)],
        # An optional table: alone.
        ({"data": [[20, 1], [21, 1]], "table": [{"a": 5}]}, 200, [26.0, 27.0]),
        ({"data": [[13, 1]]}, 500, None),
        ({"data": [[1, 2, 3]]}, 400, None),
        ({"data": [["one", 2]]}, 400, None),
        ({"table": [{"a": 5}]}, 400, None),
    ]
    with ThreadPoolExecutor(len(asked) + 1) as threads:
        first = threads.submit(service.score, {"data": [[1, 1]]})
        replies = list(threads.map(lambda one: service.score(one[0]), asked))
        assert first.result().json == [2.0]
    for (sent, status, returned), reply in zip(asked, replies, strict=True):
        assert reply.status == status, sent
        if status == 200:
            assert reply.json == returned, sent
    calls = service.score({"data": [[0, 0]], "how": "calls"}).json
    assert max(calls) > 3
    assert len(calls) < len(asked)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("def run(data):\n    return 1\n", "run() of score.py declares nothing that has rows"),
        (
            "from azureml.contrib.services.aml_request import rawhttp\n@rawhttp\ndef run(request):\n    return 1\n",
            "run() of score.py declares nothing that has rows",
        ),
        (
            SCRIPT.replace("def run(data,", "def run(data, request_headers,"),
            "run() of score.py takes request_headers, which every request has its own of",
        ),
    ],
    ids=["plain", "raw", "headers"],
)
def test_a_script_that_cannot_be_joined_is_refused_at_the_start(start: Any, script: str, words: str) -> None:
    service = start(script, "--batching", "on")
    assert service.ended() == 1
    assert words in service.lines[-1]
    assert "take batching: on away" in json.dumps(service.lines[-1])
