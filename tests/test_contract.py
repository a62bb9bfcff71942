"""Schemas are inferred, said in words and compared: what no client can notice is no break, everything else is one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stageway.contract import Contract, Schema, breaks, describe, differences, infer, merge

leaves: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-100, 100) | st.floats(-100, 100) | st.text(max_size=3)
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(inner, min_size=n, max_size=n), min_size=1, max_size=3))
    ),
    max_leaves=8,
)


def fits(value: Any, schema: Schema) -> bool:
    return Draft202012Validator(schema).is_valid(value)


@given(values)
def test_a_value_fits_the_schema_that_is_inferred_from_it(value: Any) -> None:
    schema = infer(value)
    Draft202012Validator.check_schema(schema)
    assert fits(value, schema)


@given(values)
def test_a_contract_does_not_break_itself(value: Any) -> None:
    contract = Contract(infer(value), infer(value))
    assert breaks(contract, contract) == []


@given(values, values)
def test_a_reply_without_a_break_is_one_that_was_agreed(old: Any, new: Any) -> None:
    if not breaks(Contract(response=infer(old)), Contract(response=infer(new))):
        assert fits(new, infer(old))


@given(values, values)
def test_a_request_without_a_break_is_still_taken(old: Any, new: Any) -> None:
    if not breaks(Contract(request=infer(old)), Contract(request=infer(new))):
        assert fits(old, infer(new))


@given(values, values)
def test_requests_and_replies_break_the_opposite_way(one: Any, other: Any) -> None:
    asked = breaks(Contract(request=infer(one)), Contract(request=infer(other)))
    given_back = breaks(Contract(response=infer(other)), Contract(response=infer(one)))
    assert bool(asked) == bool(given_back)


@given(values, values, values)
def test_not_breaking_carries_on(first: Any, second: Any, third: Any) -> None:
    one, two, three = (Contract(response=infer(value)) for value in (first, second, third))
    if not breaks(one, two) and not breaks(two, three):
        assert not breaks(one, three)


@given(values)
def test_a_side_that_nobody_declared_is_not_compared(value: Any) -> None:
    known, unknown = Contract(infer(value), infer(value)), Contract()
    assert breaks(known, unknown) == breaks(unknown, known) == []


@given(st.lists(values, min_size=1, max_size=4))
def test_every_value_fits_the_merged_schema(several: list[Any]) -> None:
    merged = merge([infer(value) for value in several])
    assert all(fits(value, merged) for value in several)


@given(st.lists(values, min_size=1, max_size=4))
def test_one_of_several_replies_is_within_what_all_imply(several: list[Any]) -> None:
    merged = Contract(response=merge([infer(value) for value in several]))
    assert breaks(merged, merged) == []


@given(values, st.sampled_from(["decorators", "signature", "samples"]))
def test_a_contract_goes_there_and_back_and_its_digest_is_that_of_the_schemas(value: Any, source: str) -> None:
    contract = Contract(infer(value), infer([value]), source)
    assert Contract.from_json(contract.to_json()) == contract
    assert contract.digest == Contract(infer(value), infer([value]), "none").digest
    assert contract.digest != Contract(infer([value]), infer(value), source).digest or infer(value) == infer([value])


@given(values)
def test_any_schema_can_be_said_in_words(value: Any) -> None:
    assert describe(infer(value))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (None, "anything"),
        ({}, "anything"),
        (infer([[1.0, 2.0]]), "array of array(2) of number"),
        (infer({"a": "x", "b": [True]}), "object {a: string, b: array of boolean}"),
        ({"type": ["number", "null"]}, "number or null"),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}, "array of (string, number)"),
        (infer([]), "array"),
        (infer({}), "object"),
    ],
)
def test_words_of_schemas(schema: Any, words: str) -> None:
    assert describe(schema) == words


ARRAY: Schema = {"type": "array"}
NUMBER: Schema = {"type": "number"}
TEXT: Schema = {"type": "string"}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (infer([1.0]), infer([[1.0, 2.0]]), ["reply: array of array(2) of number where array of number was agreed"]),
        (infer([[1.0, 2.0]]), infer([[1.0]]), ["reply: array of array(1) of number where array of array(2) of number"]),
        (infer({"a": 1, "b": 2}), infer({"a": 1}), ["reply.b: missing where number was agreed"]),
        (infer({"a": {"b": 1}}), infer({"a": {"b": "x"}}), ["reply.a.b: string where number was agreed"]),
        (infer([{"a": 1}]), infer([{"a": "x"}]), ["reply[].a: string where number was agreed"]),
        (NUMBER, {"type": "integer"}, []),
        ({"type": "integer"}, NUMBER, ["reply: number where integer was agreed"]),
        ({"type": ["number", "null"]}, NUMBER, []),
        (NUMBER, {"type": ["number", "null"]}, ["reply: number or null where number was agreed"]),
        ({"type": ["array", "null"], "items": NUMBER}, {**ARRAY, "items": TEXT}, ["reply: array of string where"]),
        ({}, NUMBER, []),
        (NUMBER, {}, ["reply: anything where number was agreed"]),
        ({**ARRAY, "maxItems": 3}, {**ARRAY, "maxItems": 2}, []),
        ({**ARRAY, "maxItems": 3}, ARRAY, ["reply: array where array was agreed"]),
        ({**ARRAY, "prefixItems": [NUMBER, TEXT]}, {**ARRAY, "prefixItems": [NUMBER, TEXT]}, []),
        ({**ARRAY, "prefixItems": [NUMBER, TEXT]}, {**ARRAY, "prefixItems": [TEXT, NUMBER]}, ["reply: array of (st"]),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, []),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, ['reply: one of "a", "b" where one of "a" was agreed']),
        ({"enum": [1]}, {"enum": ["1"]}, ['reply: one of "1" where one of 1 was agreed']),
        ({"enum": ["a"]}, TEXT, ['reply: string where one of "a" was agreed']),
    ],
)  # fmt: skip
def test_what_a_client_of_the_replies_would_notice(old: Schema, new: Schema, found: list[str]) -> None:
    said = breaks(Contract(response=old), Contract(response=new))
    assert len(said) == len(found)
    assert all(one.startswith(start) for one, start in zip(said, found, strict=True))


def test_a_request_that_asks_for_more_is_a_break_and_one_that_asks_for_less_is_not() -> None:
    little, much = Contract(request=infer({"a": 1})), Contract(request=infer({"a": 1, "b": "x"}))
    assert breaks(little, much) == ["request: needs b (string), which was not agreed"]
    assert breaks(much, little) == []


def test_a_break_is_said_with_the_names_of_both_releases() -> None:
    [one] = differences(Contract(request=infer([1.0])), Contract(request=infer(["x"])))
    assert one.sentence("m:1 in prod", "m:2") == (
        "the request of m:2 must be array of string where m:1 in prod takes array of number"
    )
