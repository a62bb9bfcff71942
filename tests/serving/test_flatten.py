"""From bodies to columns: rows where there are rows, and never what must not be kept."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageway.serving.flatten import MOST_COLUMNS, Reader

CASES: list[tuple[str, Any, dict[str, list[Any]]]] = [
    ("rows", {"data": [[1, 2.5], [3, 4]]}, {"f0": [1, 3], "f1": [2.5, 4]}),
    ("rows with a method", {"data": [[1], [2]], "method": "predict"}, {"f0": [1, 2], "method": ["predict"] * 2}),
    ("bare rows", [[1, 2]], {"f0": [1], "f1": [2]}),
    ("records", [{"a": 1, "b": "x"}, {"a": 2, "c": None}], {"a": [1, 2], "b": ["x", None], "c": [None, None]}),
    (
        "wrapped records",
        {"Inputs": {"data": [{"a": 1}]}, "Globals": 3},
        {"Inputs": [{"data": [{"a": 1}]}], "Globals": [3]},
    ),
    ("only wrapped", {"Inputs": {"data": [{"a": 1}]}}, {"a": [1]}),
    ("predictions", {"predict": [1.5, 2.5]}, {"predict": [1.5, 2.5]}),
    (
        "two results",
        {"predict": [0, 1], "proba": [[0.9, 0.1], [0.2, 0.8]]},
        {"predict": [0, 1], "proba.f0": [0.9, 0.2], "proba.f1": [0.1, 0.8]},
    ),
    ("columns", {"a": [1, 2], "b": ["x", "y"]}, {"a": [1, 2], "b": ["x", "y"]}),
    ("one record", {"a": 1, "b": "x"}, {"a": [1], "b": ["x"]}),
    ("unequal", {"a": [1, 2], "b": [1]}, {"a": [[1, 2]], "b": [[1]]}),
    ("split table", {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, {"a": [1], "b": [2]}),
    ("ragged", [[1], [1, 2]], {"json": ["[1]", "[1,2]"]}),
    ("images", [[[1, 2], [3, 4]]], {"f0": [[1, 2]], "f1": [[3, 4]]}),
    (
        "a tensor of a shape that is none",
        {"data": [[1, 2]], "inputs": [{"name": "x", "shape": [1, "a", 1], "data": [1]}]},
        {"data.f0": [1], "data.f1": [2], "inputs.name": ["x"], "inputs.shape": [[1, "a", 1]], "inputs.data": [[1]]},
    ),
    (
        "a tensor of mixed data",
        {"inputs": [{"name": "x", "shape": [2], "data": [[1], "ab"]}]},
        {"x": [[1], "ab"]},
    ),
    ("half a character in a name", {"\ud800": 1, "a": 2}, {"\\ud800": [1], "a": [2]}),
    ("a number", 3.5, {"value": [3.5]}),
    ("numbers", [1, 2], {"value": [1, 2]}),
    ("text", "yes", {"value": ["yes"]}),
    ("JSON in text", json.dumps({"result": [1, 2]}), {"result": [1, 2]}),
    ("nothing", None, {}),
    ("no rows", {"data": []}, {}),
    (
        "tensors",
        {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}]},
        {"f0": [1, 3], "f1": [2, 4]},
    ),
    (
        "named tensors",
        {"inputs": [{"name": n, "shape": [2, 1], "datatype": "FP64", "data": [[1], [2]]} for n in "ab"]},
        {"a": [1, 2], "b": [1, 2]},
    ),
]


@pytest.mark.parametrize(("value", "columns"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_value_becomes_columns(value: Any, columns: dict[str, list[Any]]) -> None:
    assert Reader().body(json.dumps(value).encode()) == columns


def test_rows_without_names_get_those_of_the_model() -> None:
    reader = Reader()
    reader.names = ["age", "bmi"]
    assert reader.value({"data": [[1, 2]]}) == {"age": [1], "bmi": [2]}
    assert reader.value({"data": [[1, 2, 3]]}) == {"f0": [1], "f1": [2], "f2": [3]}
    assert reader.value([[1, 2]], ["a", "b"]) == {"a": [1], "b": [2]}


@pytest.mark.parametrize("body", [b"\x89PNG\xff", b"", b"password=hunter2", b"{not json"])
def test_of_what_is_not_json_only_length_and_digest_are_kept(body: bytes) -> None:
    assert Reader().body(body) == {"$bytes": [len(body)], "$sha256": [hashlib.sha256(body).hexdigest()]}


@pytest.mark.parametrize(
    "value",
    [
        {"Password": "secret", "a": 1},
        [{"a": 1, "PASSWORD": "secret"}],
        {"data": [[1, "secret"]], "columns": ["a", "password"]},
        {"x": {"columns": ["a", "password"], "data": [[1, "secret"]]}, "a": 1},
        {"a": [{"b": {"c": [{"password": "secret"}]}}], "d": {"password": "secret"}},
        json.dumps({"a": json.dumps({"password": "secret"}), "b": 1}),
        {"a": 1, "headers": {"Authorization": "secret", "Cookie": "secret"}},
        {"inputs": [{"name": "password", "shape": [1], "data": ["secret"]}, {"name": "a", "shape": [1], "data": [1]}]},
        {"a": 1, "set-cookie": "secret"},
        {"columns": ["password", "a"], "values": [["secret", 2]]},
        {"columns": ["password", "a"], "index": [0], "data": [["secret", 2, 3], [1, 2]]},
        {"columns": [["password"], "a"], "data": [["secret", 2]]},
        [{"name": "Password", "value": "secret"}, {"name": "a", "value": 1}],
        {"a": 1, "field": {"Name": "password", "value": "secret"}},
        {"inputs": [{"name": "password", "shape": [1], "rawData": "secret"}, {"name": "a", "shape": [1], "data": [1]}]},
        {"a": "\ufeff" + json.dumps({"password": "secret"}), "b": 1},
    ],
)
def test_what_is_left_out_is_nowhere(value: Any) -> None:
    reader = Reader(["PassWord"])
    columns = reader.body(json.dumps(value).encode())
    assert columns
    assert "secret" not in str(columns)


def test_a_feature_name_that_is_left_out_is_no_column() -> None:
    reader = Reader(["bmi"])
    reader.names = ["age", "BMI"]
    assert reader.value([[1, 2]]) == {"age": [1]}


def test_more_columns_than_a_table_should_have_become_text() -> None:
    wide = {str(number): number for number in range(MOST_COLUMNS + 1)}
    assert Reader().value(wide) == {"json": [json.dumps(wide, separators=(",", ":"))]}
    assert list(Reader().value([list(range(MOST_COLUMNS + 1))])) == ["json"]
    assert list(Reader().value([wide])) == ["json"]


def test_what_is_nested_without_end_does_no_harm() -> None:
    assert Reader(["x"]).body(b"[" * 400 + b"]" * 400) != {}


def memory(body: bytes) -> int:
    """Return the most bytes that reading *body* into columns takes."""
    tracemalloc.start()
    try:
        columns = Reader().body(body)
        return tracemalloc.get_traced_memory()[1] + sum(8 * len(values) for values in columns.values())
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value",
    [
        {"data": [[1]], "inputs": [{"name": "x", "shape": [1, "a", 600_000_000], "data": [1]}]},
        {"inputs": [{"name": "x", "shape": [1, [0], 600_000_000], "data": [1]}]},
        {"data": [0] * 100_000, **{str(number): 0 for number in range(900)}},
        [*({str(number): 0} for number in range(900)), *({} for _ in range(100_000))],
        {str(number) * 500: [0] * 300 for number in range(1001)},
    ],
    ids=["text in a shape", "a list in a shape", "values beside rows", "records with holes", "long names"],
)
def test_a_small_body_becomes_nothing_large(value: Any) -> None:
    assert memory(json.dumps(value).encode()) < 100_000_000


def test_a_long_text_is_not_repeated_beside_each_row() -> None:
    columns = Reader().value({"data": [0] * 10_000, "x": "a" * 10_000})
    assert {name: len(values) for name, values in columns.items()} == {"data": 1, "x": 1}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.just("secret"), inner, max_size=5),
    max_leaves=30,
)


@given(values)
def test_columns_are_of_one_length_and_hold_nothing_that_is_left_out(value: Any) -> None:
    columns = Reader(["secret"]).body(json.dumps(value).encode())
    assert len({len(values) for values in columns.values()}) <= 1
    assert "secret" not in columns
