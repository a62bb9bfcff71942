"""What a version declares beside its code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stageway.contract import Contract, breaks
from stageway.images.declared import common, declared
from stageway.release import Model, ModelVersion
from stageway.samples import Sample

NUMBERS = {"type": "array", "items": {"type": "number"}}
ID = ModelVersion(registry="r", name="times", version="1", created=1)


def model(signature: Contract | None = None) -> Model:
    return Model(id=ID, digest="sha256:0", signature=signature.to_json() if signature is not None else None)


def sample(request: Any, *expected: Any) -> Sample:
    name = "one"
    return Sample(name, json.dumps(request).encode(), expected[0] if expected else None, bool(expected))


def test_the_signature_goes_before_samples() -> None:
    signature = Contract({"type": "object"}, {"type": "string"}, "whatever")
    found = declared(model(signature), [sample([1], [2])])
    assert found == Contract({"type": "object"}, {"type": "string"}, "signature")


@pytest.mark.parametrize(
    ("framework", "expected"),
    [
        (None, NUMBERS),
        ("ScikitLearn", {"type": "object", "properties": {"predict": NUMBERS}, "required": ["predict"]}),
        ("MLflow", {"type": "object", "properties": {"predictions": NUMBERS}, "required": ["predictions"]}),
    ],
)
def test_what_a_model_returns_is_a_part_of_the_reply_without_a_script(framework: str | None, expected: Any) -> None:
    found = declared(model(Contract({"type": "object"}, NUMBERS, "signature")), [], framework)
    assert found == Contract({"type": "object"}, expected, "signature")


def test_graphs_say_themselves_what_they_take_and_give() -> None:
    assert declared(model(Contract({"type": "object"}, NUMBERS, "signature")), [], "Onnx") is None
    samples = Contract({"type": "object"}, NUMBERS, "samples")
    assert declared(model(samples), [], "Onnx") == samples


def test_samples_with_replies_declare_a_contract() -> None:
    found = declared(model(), [sample({"data": [[1, 2]]}, [1.5])])
    assert found is not None
    assert found.source == "samples"
    assert found.response == NUMBERS


def test_a_signature_that_was_made_of_samples_says_so() -> None:
    found = declared(model(Contract(NUMBERS, NUMBERS, "samples")), [])
    assert found == Contract(NUMBERS, NUMBERS, "samples")


@pytest.mark.parametrize("signature", [None, Contract()])
def test_samples_without_replies_declare_nothing(signature: Contract | None) -> None:
    assert declared(model(signature), [sample([1])]) is None
    assert declared(model(signature), []) is None


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (NUMBERS, NUMBERS, NUMBERS),
        (NUMBERS, {"type": "string"}, {}),
        (NUMBERS, {"type": "array", "items": {"type": "string"}}, {"type": "array"}),
        (NUMBERS, {"type": "array"}, {"type": "array"}),
        (
            {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
            NUMBERS,
        ),
    ],
)
def test_samples_that_differ_declare_what_they_agree_on(one: Any, other: Any, both: Any) -> None:
    assert common([one, other]) == both
    assert common([other, one]) == both


def test_a_key_that_only_some_samples_have_is_not_required() -> None:
    found = declared(model(), [sample({"data": 1, "method": "x"}, 1), sample({"data": 2}, 2)])
    assert found is not None
    assert found.request is not None
    assert found.request["required"] == ["data"]
    assert found.request["properties"]["method"] == {"type": "string"}


def test_each_sample_keeps_the_contract_of_all() -> None:
    one, other = sample({"data": [[1, 2]]}, [1]), sample({"data": [[1, 2], [3, 4]], "method": "a"}, [1, 2])
    everything, only = declared(model(), [one, other]), declared(model(), [one])
    assert everything is not None
    assert only is not None
    assert breaks(only, Contract(everything.request, everything.response)) == []
