"""Replies are compared, validated and read as error text; each problem names its place."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageway.contract import infer
from stageway.tasks.replies import differences, error_text, invalid, missing_parameter, text_instead

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_a_value_is_what_was_expected_of_it(value: Any) -> None:
    assert differences(value, value, 0.0) == []
    assert differences(value, json.loads(json.dumps(value)), 0.0) == []


@given(values)
def test_a_value_keeps_its_own_schema(value: Any) -> None:
    assert invalid(value, infer(value)) == []


@given(st.floats(1, 1e6), st.floats(0, 0.5))
def test_a_number_beyond_the_tolerance_is_told(number: float, tolerance: float) -> None:
    assert differences(number, number * (1 + 2 * tolerance + 1e-3), tolerance)
    assert not differences(number, number * (1 + tolerance / 2), tolerance)


@pytest.mark.parametrize(
    ("expected", "reply", "says"),
    [
        ([1.0], [2.0], "reply[0] is 2.0, expected 1.0 (tolerance 1e-06)"),
        ({"a": {"b": 1}}, {"a": {}}, "reply.a.b is missing, expected 1"),
        ({"a": [1, 2]}, {"a": [2, 1]}, "reply.a[0] is 2, expected 1 (tolerance 1e-06)"),
        ([1], [], "reply has 0 items, expected 1"),
        (True, 1, "reply is 1, expected true"),
        (1, "1", "reply is '1', expected 1"),
        (None, 0, "reply is 0, expected null"),
        ("a", "b", "reply is 'b', expected 'a'"),
        (math.nan, 1.0, "reply is 1.0, expected NaN (tolerance 1e-06)"),
        ([0.0], [0.1], "reply[0] is 0.1, expected 0.0 (tolerance 1e-06)"),
    ],
)
def test_a_difference_names_its_place(expected: Any, reply: Any, says: str) -> None:
    assert differences(expected, reply, 1e-6)[0] == says


@pytest.mark.parametrize(
    ("expected", "reply"),
    [(1, 1.0), ({"a": 1}, {"a": 1, "b": 2}), (0.0, 1e-15), (math.nan, math.nan), (math.inf, math.inf), ([], [])],
)
def test_what_no_client_notices_is_no_difference(expected: Any, reply: Any) -> None:
    assert differences(expected, reply, 1e-6) == []


def test_many_differences_are_counted() -> None:
    found = differences([1.0] * 10, [2.0] * 10, 1e-6)
    assert len(found) == 4
    assert found[-1] == "and 7 more"


@pytest.mark.parametrize(
    "reply",
    [
        "Traceback (most recent call last):\n  File ...",
        "ValueError: could not convert string to float: 'a'",
        "could not convert string to float: 'a'",
        "Expected 2D array, got 1D array instead:\narray=[1.]. Reshape your data",
        "X has 3 features, but Ridge is expecting 10 features as input.",
        "'data'",
        "list index out of range",
        "name 'model' is not defined",
        "'NoneType' object has no attribute 'predict'",
        "run() got an unexpected keyword argument 'inputs'",
        "Expecting value: line 1 column 1 (char 0)",
        "the JSON object must be str, bytes or bytearray, not dict",
        "[Errno 2] No such file or directory: 'model.pkl'",
        "error: bad input",
        "sklearn.exceptions.NotFittedError: This Ridge instance is not fitted yet.",
        '{"error": "bad input"}',
        {"error": "bad input"},
        {"Exception": "bad input"},
        {"result": None, "error-message": "bad input"},
        {"result": "KeyError: 'data'"},
        ["'data'"],
    ],
)
def test_the_errors_that_scripts_return_are_recognised(reply: Any) -> None:
    assert error_text(reply) is not None


@pytest.mark.parametrize(
    "reply",
    [
        "benign",
        "failure",
        "error",
        "The patient's error rate is low",
        "it's a cat",
        '{"score": 1}',
        "[1, 2]",
        "",
        3.0,
        None,
        True,
        [],
        ["cat", "dog"],
        [[1.0]],
        {"score": 1.0, "error": None},
        {"error": 0},
        {"errors": []},
        {"label": "error: bar"},
        {"standard_error": 0.2},
    ],
)
def test_results_are_not_taken_for_errors(reply: Any) -> None:
    assert error_text(reply) is None


@given(values)
def test_any_reply_can_be_looked_at(reply: Any) -> None:
    assert isinstance(error_text(reply), str | None)
    assert isinstance(text_instead(reply, {"type": "array"}), str | None)


def test_text_is_told_only_where_something_else_was_promised() -> None:
    assert text_instead("sorry", {"type": "array"}) == "'sorry'"
    assert text_instead("sorry", {"type": "string"}) is None
    assert text_instead("sorry", {"type": ["array", "string"]}) is None
    assert text_instead("sorry", None) is None
    assert text_instead([1], {"type": "string"}) is None


@pytest.mark.parametrize(
    ("schema", "reply", "says"),
    [
        ({"type": "array", "items": {"type": "number"}}, [1, "a"], "reply[1]: 'a' is not of type 'number'"),
        (infer([[1.0, 2.0]]), [[1.0]], "reply[0]: "),
        (infer({"score": 1.0}), {}, "reply: 'score' is a required property"),
        (infer({"score": 1.0}), {"score": "high"}, "reply.score: 'high' is not of type 'number'"),
        (infer([1.0]), {"score": 1.0}, "reply is object {score: number}, and the contract says array of number"),
    ],
)
def test_a_reply_outside_the_contract_names_its_place(schema: Any, reply: Any, says: str) -> None:
    assert invalid(reply, schema)[0].startswith(says)


def test_without_a_contract_everything_is_valid() -> None:
    assert invalid({"anything": 1}, None) == []


def test_the_parameter_that_run_lacks_is_found_in_a_log() -> None:
    log = "  File score.py\nTypeError: run() got an unexpected keyword argument 'inputs'\n"
    assert missing_parameter(log) == "inputs"
    assert missing_parameter("TypeError: nothing of the kind") is None
