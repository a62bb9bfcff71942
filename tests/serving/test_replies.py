"""JSON in and out: what Python's own numbers, tables and dates become, and what is said of what is none."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageway.serving import replies
from stageway.serving.replies import BadRequestError


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float64(0.1), "0.1"),
        (np.int8(-1), "-1"),
        (np.bool_(True), "true"),
        (np.str_("a"), '"a"'),
        (np.array(["a", "b"]), '["a","b"]'),
        (np.array([[1, 2], [3, 4]]).T, "[[1,3],[2,4]]"),
        (np.array([1, None], dtype=object), "[1,null]"),
        ([np.array([1.5])], "[[1.5]]"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), '[{"a":1,"b":"x"}]'),
        (pd.Series([1, 2]), "[1,2]"),
        (pd.Timestamp("2020-01-02T03:04:05"), '"2020-01-02T03:04:05"'),
        (datetime.date(2020, 1, 2), '"2020-01-02"'),
        (pd.NaT, "null"),
        ([pd.NA, None], "[null,null]"),
        (pd.Series([1, pd.NA], dtype="Int64"), "[1,null]"),
        (pd.DataFrame({"a": [pd.NaT]}), '[{"a":null}]'),
        (datetime.timedelta(days=1, hours=2), '"P1DT2H0M0S"'),
        (datetime.timedelta(seconds=-1, microseconds=500), '"P-1DT23H59M59.0005S"'),
        (pd.Timedelta(days=1, hours=2), '"P1DT2H0M0S"'),
        (np.timedelta64(1500, "ms"), '"P0DT0H0M1.5S"'),
        (np.array([1500000, "NaT"], dtype="m8[ns]"), '["P0DT0H0M0.0015S",null]'),
        (float("inf"), "null"),
        ((1, {"k": (2,)}), '[1,{"k":[2]}]'),
        ({1: "one", None: "none"}, '{"1":"one","null":"none"}'),
        ('{"text": 1}', json.dumps('{"text": 1}')),
        (Decimal("1.5"), "1.5"),
        ([2**70], "[1180591620717411303424]"),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_values_are_written(value: Any, written: str) -> None:
    assert replies.dumps(value).decode() == written


@given(st.timedeltas(datetime.timedelta(-100_000), datetime.timedelta(100_000)))
def test_durations_are_written_as_pandas_writes_them(value: datetime.timedelta) -> None:
    assert json.loads(replies.dumps(value)) == pd.Timedelta(value).isoformat()


@pytest.mark.parametrize("value", [object(), [lambda: 1], {"a": 1j}, b"bytes"])
def test_what_has_no_json_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        replies.dumps(value)


@pytest.mark.parametrize("body", [b"", b" \n", b"{", b"\xff", b"[1,]", b"'a'", b"[" * 100_000])
def test_what_is_not_json_is_the_clients_mistake(body: bytes) -> None:
    with pytest.raises(BadRequestError) as refused:
        replies.loads(body)
    assert refused.value.status == 400
    assert refused.value.message.startswith("the body is ")


def test_numbers_that_only_python_writes_are_read() -> None:
    assert str(replies.loads(b"[NaN, -Infinity, 1]")) == "[nan, -inf, 1]"


def test_half_a_character_is_repeated_to_who_sent_it() -> None:
    sent = replies.loads(b'"\\ud800"')
    assert (
        replies.message(400, f"the parameter {sent} is missing").body
        == rb'{"message":"the parameter \\ud800 is missing"}'
    )
