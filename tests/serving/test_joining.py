"""Joining and splitting: there and back, for every form that data has; and models that do not notice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge

from stageway.serving import joining

FEATURES, TARGET = load_diabetes(return_X_y=True)


def forms(rows: list[list[float]]) -> list[Any]:
    array = np.array(rows, dtype=float).reshape(len(rows), 2)
    table = pd.DataFrame(array, columns=["a", "b"])
    return [array, table, table["a"], rows, {"x": array, "y": table}, (array, rows), {"x": {"y": array}}]


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return np.asarray(value).tolist()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_what_is_joined_comes_apart_as_it_was(lengths: list[int]) -> None:
    parts = [forms([[float(number), float(row)] for row in range(length)]) for number, length in enumerate(lengths)]
    for place in range(len(parts[0])):
        given = [part[place] for part in parts]
        joined = joining.join(given)
        assert joining.count(joined) == sum(lengths)
        if isinstance(joined, tuple):
            continue
        assert [plain(piece) for piece in joining.split(joined, lengths)] == [plain(one) for one in given]


def test_only_what_is_alike_has_one_kind() -> None:
    array, table = np.zeros((2, 3)), pd.DataFrame({"a": [1.0], "b": [2]})
    assert joining.kind(array) == joining.kind(np.ones((5, 3)))
    different = [
        array,
        np.zeros((2, 4)),
        np.zeros((2, 3), dtype=int),
        np.zeros(2),
        [1],
        table,
        table[["b", "a"]],
        table.astype(float),
        {"x": array},
        {"y": array},
        (array,),
    ]
    assert len({joining.kind(one) for one in different}) == len(different)
    for alone in (3, "text", b"bytes", None, np.float64(1), {}, (), {"x": array, "y": 3}, (array, "text")):
        assert joining.kind(alone) is None


def test_parts_of_different_lengths_are_not_counted() -> None:
    with pytest.raises(ValueError, match=r"the parts have \[1, 2\] rows"):
        joining.count({"x": np.zeros(1), "y": np.zeros(2)})


@pytest.mark.parametrize(
    "result", [3, None, "ab", b"ab", np.float64(1), np.zeros(3), [1, 2, 3], {"x": [1, 2], "y": 3}, {"x": "ab"}, {}]
)
def test_a_result_without_one_item_a_row_is_refused(result: Any) -> None:
    with pytest.raises(ValueError, match="rows"):
        joining.split(result, [1, 1])


@pytest.mark.parametrize("model", [Ridge(), RandomForestRegressor(20, random_state=1)], ids=["ridge", "forest"])
def test_models_give_the_same_joined_and_alone(model: Any) -> None:
    """A forest to the bit. A linear model to the last places: the sum of its products is added up in another order."""
    model.fit(FEATURES, TARGET)
    lengths = [1, 3, 1, 7, 20, 1, 1]
    ends = np.cumsum(lengths)
    parts = [FEATURES[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    found = joining.split(model.predict(joining.join(parts)), lengths)
    for piece, part in zip(found, parts, strict=True):
        alone = model.predict(part)
        if isinstance(model, Ridge):
            np.testing.assert_allclose(piece, alone, rtol=1e-12, atol=0)
        else:
            assert piece.tobytes() == alone.tobytes()
