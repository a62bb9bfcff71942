"""Which arrays are which tensors, and what fits a signature."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stageway.serving import tensors
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Tensor

X, Y = Tensor("x", "FP64", (-1, 2)), Tensor("y", "BYTES", (-1, 1))


@pytest.mark.parametrize(("name", "dtype"), tensors.DTYPES.items())
def test_every_datatype_has_a_dtype_and_back(name: str, dtype: str) -> None:
    assert tensors.datatype(np.dtype(dtype)) == name


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.dtype("U5"), "BYTES"),
        (np.dtype("S5"), "BYTES"),
        (pd.CategoricalDtype(["a"]), "BYTES"),
        (pd.StringDtype(), "BYTES"),
        (pd.Int32Dtype(), "INT32"),
        (np.dtype("datetime64[ns]"), None),
        (np.dtype("complex128"), None),
        (np.dtype([("a", "int8")]), None),
        (pd.DatetimeTZDtype("ns", "UTC"), None),
    ],
)
def test_other_dtypes_are_text_or_nothing(dtype: Any, name: str | None) -> None:
    assert tensors.datatype(dtype) == name


def test_a_sample_tells_all_lengths_but_the_first() -> None:
    sample = np.ones((7, 2, 3), dtype="float32")
    assert tensors.of_array("x", sample) == Tensor("x", "FP32", (-1, 2, 3))
    assert tensors.of_array("x", sample, enforced=False) == Tensor("x", "FP32", (-1, -1, -1))
    assert tensors.of_array("x", np.array(1.0)) is None
    assert tensors.of_table(pd.DataFrame({"a": [1], 2: ["b"]})) == (
        Tensor("a", "INT64", (-1, 1)),
        Tensor("2", "BYTES", (-1, 1)),
    )
    assert tensors.of_table(pd.DataFrame({"a": [datetime.datetime(2020, 1, 2)]})) is None


@pytest.mark.parametrize(
    ("sent", "fits"),
    [("bool", True), ("int32", True), ("float16", True), ("float32", True), ("float64", True), ("object", False)],
)
def test_what_the_declared_type_holds_without_loss_fits(sent: str, fits: bool) -> None:
    array = np.ones((1, 2)).astype(sent)
    if fits:
        (found,) = tensors.fitted({"any": array}, [X]).values()
        assert (found.dtype, found.tolist()) == (np.dtype("float64"), [[1.0, 1.0]])
    else:
        with pytest.raises(BadRequestError, match="the input 'x' is BYTES, the model takes FP64"):
            tensors.fitted({"any": array}, [X])


def test_inputs_come_in_the_order_of_the_signature_and_a_column_in_either_shape() -> None:
    given = {"y": np.array([b"a"], dtype=object), "x": np.ones((1, 2))}
    found = tensors.fitted(given, [X, Y])
    assert list(found) == ["x", "y"]
    assert found["y"].shape == (1, 1)


def test_texts_are_utf_8() -> None:
    assert tensors.text(np.array([["ä".encode(), "b"]], dtype=object)).tolist() == [["ä", "b"]]
    with pytest.raises(BadRequestError, match="the BYTES are not UTF-8 text"):
        tensors.text(np.array([b"\xff"], dtype=object))


def test_a_table_goes_there_and_back() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "ä"], "c": [True, False]})
    made = tensors.table(tensors.columns(frame))
    assert made["a"].tolist() == [1, 2]
    assert made["b"].tolist() == ["x", "ä"]
    assert made["c"].dtype == bool


@pytest.mark.parametrize(
    ("value", "wanted", "dtype"),
    [
        ([1, 2], "FP64", "float64"),
        ([1, 2], None, "int64"),
        ([1.5], "INT64", "float64"),
        (np.ones(2, "float32"), "FP64", "float64"),
        (["a", "b"], None, "<U1"),
        (np.array(["a", b"b"], dtype=object), "BYTES", "object"),
    ],
)
def test_a_result_keeps_its_kind(value: Any, wanted: str | None, dtype: str) -> None:
    assert tensors.array(value, wanted).dtype == np.dtype(dtype)


@pytest.mark.parametrize("value", [{"a": 1}, [None], [object()], np.array(["2020"], dtype="datetime64[D]")])
def test_what_is_no_tensor_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        tensors.array(value)


@pytest.mark.parametrize(
    ("value", "room"),
    [
        ([1, 2.5, True, None], 0),
        ([[1], [2]], 0),
        ([], 0),
        ("abc", 12),
        ([1, 2, "abc"], 36),
        ([[1, "abc"], ["", 2]], 60),
        ([{"a": "abc", "b": 1}], 36),
        ([""], 4),
        ([b"ab", b""], 16),
        ([10**400, 1.5], 0),
    ],
)
def test_text_needs_the_room_of_the_longest(value: Any, room: int) -> None:
    """A list counts beside what is in it: it is what numpy takes at least, not to the byte."""
    found = tensors.room(value)
    assert (found > 0) == (room > 0)
    assert room <= found <= 2 * room
