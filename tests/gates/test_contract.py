"""The gate ``contract`` asks for the clients of the release that would be replaced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from stageway import plugins
from stageway.contract import Contract, infer
from stageway.evidence import Evidence
from stageway.gates.base import Incumbent, No, NotEnough, Standing, Yes

ROW = {"data": [[1.0, 2.0]]}


def contract(request: Any = ROW, reply: Any = (1.0,)) -> dict[str, Any]:
    """Return the evidence of a service with samples of this form; ``None`` is a side that nobody declared."""
    made = Contract(
        None if request is None else infer(request), None if reply is None else infer(list(reply)), "samples"
    )
    return {"contract": made.to_json()}


def test_the_same_contract_is_no_break(judge: Any) -> None:
    assert judge("contract", {}, contract(), contract()) == Yes(
        "clients of diabetes:2 in prod can go on with diabetes:3"
    )


def test_another_reply_breaks_clients_and_both_forms_are_said(judge: Any) -> None:
    assert judge("contract", {}, contract(reply=([1.0, 2.0],)), contract()) == No(
        "the reply of diabetes:3 is array of array(2) of number where diabetes:2 in prod gives array of number; "
        "its clients would break"
    )


def test_a_request_that_must_hold_more_breaks_clients(judge: Any) -> None:
    verdict = judge("contract", {}, contract(request={**ROW, "unit": "mg"}), contract())
    assert verdict == No(
        "the request of diabetes:3 needs unit (string), which diabetes:2 in prod does not; its clients would break"
    )


def test_every_break_is_said(judge: Any) -> None:
    verdict = judge("contract", {}, contract(request={"data": "text"}, reply=("high",)), contract())
    assert isinstance(verdict, No)
    assert verdict.why.count("of diabetes:3") == 2


def test_a_reply_that_says_more_and_a_request_that_asks_less_are_fine(judge: Any) -> None:
    old = {"contract": Contract(infer({"a": 1, "b": 2}), infer({"score": 1.0}), "samples").to_json()}
    new = {"contract": Contract(infer({"a": 1}), infer({"score": 1.0, "why": "age"}), "samples").to_json()}
    assert isinstance(judge("contract", {}, new, old), Yes)
    assert isinstance(judge("contract", {}, old, new), No)


@pytest.mark.parametrize(("requests", "kind"), [(True, No), (False, Yes)])
def test_a_side_may_be_left_out(judge: Any, requests: bool, kind: type) -> None:
    options = {"requests": requests, "replies": True}
    assert isinstance(judge("contract", options, contract(request={"data": "text"}), contract()), kind)


def test_an_empty_stage_has_no_clients_to_break(judge: Any) -> None:
    assert judge("contract", {}, {}) == Yes("prod is empty, so there are no clients to break")


@pytest.mark.parametrize(
    ("new", "old", "whose"),
    [
        (contract(reply=None), contract(), "the reply schema of diabetes:3"),
        (contract(), contract(reply=None), "the reply schema of diabetes:2 in prod"),
        (contract(request=None), contract(request=None), "the request schema of diabetes:3 and of diabetes:2 in prod"),
        ({}, contract(), "the request schema of diabetes:3 and the reply schema of diabetes:3"),
    ],
)
def test_what_nobody_declared_is_not_enough_unless_it_is_allowed(judge: Any, new: Any, old: Any, whose: str) -> None:
    verdict = judge("contract", {}, new, old)
    assert isinstance(verdict, NotEnough)
    assert whose in verdict.what
    assert "`unknown: allow`" in verdict.how
    assert isinstance(judge("contract", {"unknown": "allow"}, new, old), Yes)


def test_a_known_break_is_a_no_although_the_other_side_is_unknown(judge: Any) -> None:
    new, old = contract(request=None, reply=("high",)), contract(request=None)
    assert isinstance(judge("contract", {"unknown": "allow"}, new, old), No)
    assert isinstance(judge("contract", {}, new, old), No)


def test_the_same_version_built_anew_is_told_apart_by_its_release() -> None:
    gate = plugins.load("gate", "contract")
    facts = {name: Evidence(kind="contract", facts=contract(reply=(name,))["contract"]) for name in ("a", "b")}
    facts["b"] = Evidence(kind="contract", facts=contract()["contract"])
    standing = Standing("prod", "diabetes:2", {"prod": Incumbent("diabetes:2", "r-old", {"contract": facts["b"]})})
    verdict = gate(gate.Options()).judge({"contract": facts["a"]}, standing, datetime.now(UTC))
    assert "where diabetes:2 (r-old) in prod gives" in verdict.why


def test_a_gate_that_compares_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="leave the gate out"):
        plugins.load("gate", "contract").Options.model_validate({"requests": False, "replies": False})
