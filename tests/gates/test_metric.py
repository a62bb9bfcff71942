"""The gate ``metric`` flips with the number, says both numbers, and never says yes about what it does not know."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stageway import plugins
from stageway.gates.base import No, NotEnough, Verdict, Yes
from stageway.gates.metric import direction

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
fixture_is_pure = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("rmse", "answer"),
    [
        (59.9, Yes("rmse 59.9 is at most 60")),
        (60.0, Yes("rmse 60 is at most 60")),
        (60.1, No("rmse 60.1 is above the largest allowed, 60")),
    ],
)
def test_a_value_may_be_as_large_as_max(judge: Any, rmse: float, answer: Verdict) -> None:
    assert judge("metric", {"rmse": {"max": 60}}, {"metrics": {"rmse": rmse}}) == answer


@pytest.mark.parametrize(("r2", "kind"), [(0.5, Yes), (0.4, Yes), (0.39, No)])
def test_a_value_may_be_as_small_as_min(judge: Any, r2: float, kind: type[Verdict]) -> None:
    assert isinstance(judge("metric", {"r2": {"min": 0.4}}, {"metrics": {"r2": r2}}), kind)


NOT_WORSE = {"rmse": {"max": 100, "not-worse-than": "prod", "tolerance": "2%"}}


@pytest.mark.parametrize(
    ("rmse", "kind", "says"),
    [
        (50.0, Yes, "rmse 50 is not worse than diabetes:2 in prod (53.4)"),
        (54.0, Yes, "rmse 54 is worse than diabetes:2 in prod (53.4) by 1.12 %, within 2 %"),
        (53.4 * 1.02, Yes, "by 2 %, within 2 %"),
        (61.2, No, "rmse 61.2 is worse than diabetes:2 in prod (53.4) by 14.6 %, more than 2 %"),
    ],
)
def test_not_worse_than_a_stage_within_the_tolerance(judge: Any, rmse: float, kind: type[Verdict], says: str) -> None:
    verdict = judge("metric", NOT_WORSE, {"metrics": {"rmse": rmse}}, {"metrics": {"rmse": 53.4}})
    assert isinstance(verdict, kind)
    assert says in str(verdict)


@pytest.mark.parametrize(("accuracy", "kind"), [(0.91, Yes), (0.90, Yes), (0.89, No)])
def test_higher_is_better_where_the_name_says_so(judge: Any, accuracy: float, kind: type[Verdict]) -> None:
    options = {"accuracy": {"not-worse-than": "prod"}}
    assert isinstance(
        judge("metric", options, {"metrics": {"accuracy": accuracy}}, {"metrics": {"accuracy": 0.9}}), kind
    )


@pytest.mark.parametrize(("higher", "kind"), [(True, Yes), (False, No)])
def test_the_file_may_say_the_direction(judge: Any, higher: bool, kind: type[Verdict]) -> None:
    options = {"churn": {"not-worse-than": "prod", "higher-is-better": higher}}
    assert isinstance(judge("metric", options, {"metrics": {"churn": 2}}, {"metrics": {"churn": 1}}), kind)


def test_an_empty_stage_is_no_obstacle(judge: Any) -> None:
    assert judge("metric", NOT_WORSE, {"metrics": {"rmse": 61.2}}) == Yes(
        "rmse 61.2 is at most 100; rmse 61.2, and prod is empty"
    )


@pytest.mark.parametrize("facts", [{}, {"metrics": {}}, {"metrics": {"mae": 3.0}}])
def test_a_metric_that_is_missing_is_not_enough(judge: Any, facts: Any) -> None:
    verdict = judge("metric", {"rmse": {"max": 60}}, facts)
    assert isinstance(verdict, NotEnough)
    assert "metric 'rmse' of diabetes:3" in verdict.what
    assert "stageway register" in verdict.how


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", [{"max": 60}, {"min": 60}, {"not-worse-than": "prod"}])
def test_a_value_that_is_no_number_is_not_enough(judge: Any, value: float, rule: Any) -> None:
    verdict = judge("metric", {"rmse": rule}, {"metrics": {"rmse": value}}, {"metrics": {"rmse": 1.0}})
    assert isinstance(verdict, NotEnough)
    assert str(value) in verdict.what


@pytest.mark.parametrize("theirs", [{}, {"rmse": math.nan}])
def test_an_incumbent_without_the_metric_is_not_enough(judge: Any, theirs: Any) -> None:
    verdict = judge("metric", {"rmse": {"not-worse-than": "prod"}}, {"metrics": {"rmse": 1.0}}, {"metrics": theirs})
    assert isinstance(verdict, NotEnough)
    assert "diabetes:2 in prod" in verdict.what


def test_every_no_is_said(judge: Any) -> None:
    verdict = judge("metric", {"rmse": {"max": 60}, "r2": {"min": 0.4}}, {"metrics": {"rmse": 61, "r2": 0.3}})
    assert verdict == No("rmse 61 is above the largest allowed, 60; r2 0.3 is below the smallest allowed, 0.4")


def test_a_no_counts_more_than_what_is_missing(judge: Any) -> None:
    assert isinstance(judge("metric", {"rmse": {"max": 60}, "r2": {"min": 0}}, {"metrics": {"rmse": 61}}), No)


def test_numbers_that_differ_read_different(judge: Any) -> None:
    verdict = judge("metric", {"rmse": {"max": 60}}, {"metrics": {"rmse": 60.000001}})
    assert verdict == No("rmse 60.000001 is above the largest allowed, 60")


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("rmse", False),
        ("val_loss", False),
        ("mean_squared_error", False),
        ("logLoss", False),
        ("accuracy", True),
        ("training_r2_score", True),
        ("roc_auc", True),
        ("f1-macro", True),
        ("neg_mean_squared_error", True),
        ("profit", None),
        ("error_recall", None),
    ],
)
def test_well_known_names_tell_the_direction(name: str, higher: bool | None) -> None:
    assert direction(name) is higher


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"profit": {"not-worse-than": "prod"}}, "profit: nothing says for sure whether higher values are better"),
        ({"accuracy": {"max": 1, "not-worse-than": "prod"}}, "write higher-is-better: true (or false)"),
        ({"rmse": {}}, "write at least one of min, max, not-worse-than"),
        ({"rmse": {"tolerance": "2%", "max": 60}}, "tolerance needs not-worse-than"),
        ({"rmse": {"min": 2, "max": 1}}, "no value can pass"),
        ({"rmse": 60}, "such as {max: 60}"),
        ({"rmse": {"max": math.nan}}, "finite"),
        ({"rmse": {"maximum": 60}}, "Extra inputs"),
        ({"rmse": {"max": 60, "not-worse-than": "prod", "tolerance": 2}}, "is not a share"),
        ({}, "name at least one metric"),
    ],
)
def test_options_that_say_too_little_are_refused(options: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        plugins.load("gate", "metric").Options.model_validate(options)
    assert says in str(caught.value)


def test_min_or_max_tell_the_direction_of_an_unknown_name(judge: Any) -> None:
    options = {"profit": {"min": 1, "not-worse-than": "prod"}}
    assert isinstance(judge("metric", options, {"metrics": {"profit": 3}}, {"metrics": {"profit": 2}}), Yes)
    assert isinstance(judge("metric", options, {"metrics": {"profit": 2}}, {"metrics": {"profit": 3}}), No)


@fixture_is_pure
@given(value=finite, better=finite, limit=finite)
def test_a_better_value_never_closes_an_open_gate(judge: Any, value: float, better: float, limit: float) -> None:
    value, better = max(value, better), min(value, better)
    options = {"rmse": {"max": limit, "not-worse-than": "prod", "tolerance": "5%"}}
    prod = {"metrics": {"rmse": 10.0}}
    if isinstance(judge("metric", options, {"metrics": {"rmse": value}}, prod), Yes):
        assert isinstance(judge("metric", options, {"metrics": {"rmse": better}}, prod), Yes)


@fixture_is_pure
@given(value=finite, theirs=finite, tolerance=st.floats(0, 1))
def test_the_same_question_has_the_same_answer(judge: Any, value: float, theirs: float, tolerance: float) -> None:
    options = {"rmse": {"not-worse-than": "prod", "tolerance": tolerance}}
    asked = ("metric", options, {"metrics": {"rmse": value}}, {"metrics": {"rmse": theirs}})
    assert judge(*asked) == judge(*asked)
    assert isinstance(judge("metric", options, {"metrics": {"rmse": theirs}}, {"metrics": {"rmse": theirs}}), Yes)
