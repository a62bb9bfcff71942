"""From bytes to rows: both ways give the same array, and what is not plain rows of numbers is left to careful hands."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageway.serving import rows
from stageway.serving.frameworks import tabular

WAYS = [rows._short, rows._long]
numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.just(-0.0), st.just(5e-324)
)


@pytest.mark.parametrize("way", WAYS)
@given(data=st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=20), method=st.text(max_size=5))
def test_rows_are_what_json_says_bit_for_bit(way: Any, data: list[list[float]], method: str) -> None:
    found = way(json.dumps({"data": data, "method": method}).encode(), 3)
    if found is None:
        assert "[" in method or '"' in method or any("\ud800" <= letter <= "\udfff" for letter in method)
        return
    expected = np.array([[float(value) for value in row] for row in data])
    assert found[0].dtype == np.float64
    assert found[0].tobytes() == expected.tobytes()
    assert found[1] == method
    found[0][0, 0] = 1.0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[[1, 2]]",
        b'"data"',
        b'{"data": []}',
        b'{"data": [1, 2]}',
        b'{"data": [[1, 2], [3]]}',
        b'{"data": [[1, 2], 3]}',
        b'{"data": [[1, 2, 3]]}',
        b'{"data": [[[1, 2]]]}',
        b'{"data": [[[1], 2]]}',
        b'{"data": [[[], 1, 2], [3]]}',
        b'{"data": [[1, null]]}',
        b'{"data": [[1, "2"]]}',
        b'{"data": [[true, false]]}',
        b'{"data": [[1, NaN]]}',
        b'{"data": [[1, 1e400]]}',
        b'{"data": [[1, {"a": 1}]]}',
        b'{"data": [{"a": 1, "b": 2}]}',
        b'{"data": [[1, 2]], "method": 3}',
        b'{"data": [[1, 2]], "other": "predict"}',
        b'{"data": [[1, 2]], "method": "predict", "other": 1}',
        b'{"data": [[1, 2]]} and more',
        b'{"data": [[1, 2]',
        b'{"rows": [[1, 2]]}',
        b'{"data": [[1, 2]], "method": "\xff"}',
    ],
)
def test_anything_else_is_left_alone(way: Any, body: bytes) -> None:
    assert way(body, 2) is None


def test_long_bodies_read_at_the_same_time_do_not_mix() -> None:
    def read(number: int) -> bool:
        found = rows.matrix(json.dumps({"data": [[float(number)] * 10] * 100}).encode(), 10)
        assert found is not None
        return found[0].shape == (100, 10) and bool((found[0] == number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))


def test_numbers_that_are_no_floats_are_rounded_to_the_nearest() -> None:
    for way in WAYS:
        found = way(b'{"data": [[9007199254740993, 0.1]]}', 2)
        assert found is not None
        assert found[0].tolist() == [[9007199254740992.0, 0.1]]
        assert not math.isnan(found[0][0, 0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("other", [1, "a"])
@pytest.mark.parametrize("method", [{}, {"method": "predict"}, {"method": 1}, {"x": 1}])
def test_text_among_the_data_takes_no_room(way: Any, other: Any, method: Any, frugal: Any) -> None:
    body = json.dumps({"data": [[1, other]] * 10_000 + [[1, "x" * 20_000]], **method}).encode()
    with frugal():
        assert way(body, 2) is None


def test_text_takes_no_room_in_the_careful_way_either(frugal: Any) -> None:
    with frugal():
        found = tabular._array([[1, "a"]] * 10_000 + [[1, "x" * 20_000]])
    assert found.dtype == object
    assert found[0].tolist() == [1, "a"]
