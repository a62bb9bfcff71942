"""The contract that samples imply, and one schema for several values."""

from __future__ import annotations

from typing import Any

import pytest

from stageway.contract import Contract, breaks, infer, merge
from stageway.samples import Sample, contract


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5], {"type": "number"}),
        ([1, None], {"type": ["null", "number"]}),
        ([1, None, "a"], {"type": ["null", "number", "string"]}),
        ([1, [1]], {}),
        ([[[1, 2]], [[1, 2], [3, 4]]], infer([[1, 2]])),
        (
            [{"a": 1, "b": 1}, {"a": 2, "c": "x"}],
            {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}, "c": {"type": "string"}},
                "required": ["a"],
            },
        ),
        ([[[1, 2]], [[1, 2, 3]]], {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
    ],
)
def test_one_schema_fits_all_values(values: list[Any], expected: dict[str, Any]) -> None:
    merged = merge([infer(value) for value in values])
    assert merged == expected
    if merged:
        for value in values:
            assert breaks(Contract(infer(value)), Contract(merged)) == []


def test_samples_with_replies_imply_a_contract() -> None:
    found = contract([Sample("a", b'{"data": [[1]]}', [1.5], True), Sample("b", b'{"data": [[1], [2]]}')])
    assert found is not None
    assert found.source == "samples"
    assert found.request == infer({"data": [[1]]})
    assert found.response == infer([1.5])


def test_samples_without_replies_imply_none() -> None:
    assert contract([Sample("a", b"{}")]) is None
