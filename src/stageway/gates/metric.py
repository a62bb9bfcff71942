"""The gate ``metric``: the metrics registered with a version, against limits and against what a stage holds.

``metric: {rmse: {max: 60, not-worse-than: prod, tolerance: 2%}}``
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field, RootModel, model_validator

from stageway.evidence import Evidence
from stageway.gates.base import Incumbent, No, NotEnough, Standing, Verdict, Yes, all_of
from stageway.gates.words import numbers, percent
from stageway.specs import Share, Spec

# fmt: off
LOWER = frozenset([
    "rmse", "mae", "mse", "mape", "smape", "rmsle", "msle", "loss", "logloss", "error", "errors", "err", "deviance",
    "perplexity", "brier", "wer", "cer", "nll",
])
HIGHER = frozenset([
    "accuracy", "acc", "auc", "auroc", "auprc", "f1", "r2", "precision", "recall", "sensitivity", "specificity",
    "kappa", "mcc", "iou", "dice", "bleu", "rouge", "ndcg", "map",
])
# fmt: on
NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
"""How evidence writes what is registered and yet no number."""

ROUNDING = 1e-9
"""Shares closer than this are equal: 2 % of a float is not exactly 2 %."""


class Rule(Spec):
    """What one metric must satisfy."""

    min: float | None = Field(None, description="the smallest value that may pass", allow_inf_nan=False)
    max: float | None = Field(None, description="the largest value that may pass", allow_inf_nan=False)
    not_worse_than: str | None = Field(None, description="stage whose release must not be better than the candidate")
    tolerance: Share = Field(0.0, description="by how much it may be worse than that release")
    higher_is_better: bool | None = Field(None, description="direction, where name and limits do not tell it")

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if not isinstance(value, (Mapping, Rule)):
            raise ValueError(f"write what the metric must satisfy, such as {{max: 60}}; found {value!r}")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.min is None and self.max is None and self.not_worse_than is None:
            raise ValueError("write at least one of min, max, not-worse-than")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}; no value can pass")
        if self.tolerance and self.not_worse_than is None:
            raise ValueError("tolerance needs not-worse-than: STAGE, the release to compare with")
        return self


def direction(name: str) -> bool | None:
    """Say whether higher values of a well-known metric are better; ``None`` where its name does not tell."""
    words = [word for word in re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).lower()) if word]
    lower, higher = bool(LOWER & set(words)), bool(HIGHER & set(words))
    if lower == higher:
        return None
    negated = bool(words) and words[0] in ("neg", "negative")
    return higher != negated


def _higher_is_better(name: str, rule: Rule) -> bool | None:
    if rule.higher_is_better is not None:
        return rule.higher_is_better
    known = direction(name)
    if (rule.min is None) == (rule.max is None):
        return known
    by_limit = rule.min is not None
    return by_limit if known in (None, by_limit) else None


class Rules(RootModel[dict[str, Rule]]):
    """Metric name → what it must satisfy."""

    @model_validator(mode="after")
    def _can_be_judged(self) -> Rules:
        if not self.root:
            raise ValueError("name at least one metric, such as {rmse: {max: 60}}")
        for name, rule in self.root.items():
            if rule.not_worse_than is not None and _higher_is_better(name, rule) is None:
                raise ValueError(
                    f"{name}: nothing says for sure whether higher values are better; "
                    "write higher-is-better: true (or false)"
                )
        return self


class MetricGate:
    """Judges registered metrics."""

    Options = Rules

    def __init__(self, options: Rules) -> None:
        self.rules = options.root

    def needs(self) -> Sequence[str]:
        return ("metrics",)

    def refuses(self, stages: Sequence[str]) -> str | None:
        """Refuse a comparison with a stage that the pipeline does not have."""
        for name, rule in self.rules.items():
            if rule.not_worse_than is not None and rule.not_worse_than not in stages:
                return (
                    f"{name}: not-worse-than: no stage is called {rule.not_worse_than!r}; stages: {', '.join(stages)}"
                )
        return None

    def judge(self, evidence: Mapping[str, Evidence], incumbent: Standing, now: datetime) -> Verdict:
        """Say yes when every metric satisfies its rule."""
        return all_of([_judge(name, rule, evidence, incumbent) for name, rule in self.rules.items()])


def _value(name: str, evidence: Mapping[str, Evidence]) -> float | None:
    found = evidence["metrics"].facts.get(name) if "metrics" in evidence else None
    if isinstance(found, bool) or not (isinstance(found, (int, float)) or found in NO_NUMBERS):
        return None
    return float(found)


def _judge(name: str, rule: Rule, evidence: Mapping[str, Evidence], incumbent: Standing) -> Verdict:
    value = _value(name, evidence)
    if value is None or not math.isfinite(value):
        known = sorted(evidence["metrics"].facts) if "metrics" in evidence else []
        what = f"metric {name!r} of {incumbent.label}" + (f", which is {value}" if value is not None else "")
        return NotEnough(
            what + (f" (registered: {', '.join(known)})" if value is None and known else ""),
            f"register a version with it: `stageway register --metric {name}=VALUE`, or log it in the training run",
            "who trains the model",
        )
    parts: list[Verdict] = []
    if rule.min is not None:
        said, limit = numbers(value, rule.min)
        parts.append(
            Yes(f"{name} {said} is at least {limit}")
            if value >= rule.min
            else No(f"{name} {said} is below the smallest allowed, {limit}")
        )
    if rule.max is not None:
        said, limit = numbers(value, rule.max)
        parts.append(
            Yes(f"{name} {said} is at most {limit}")
            if value <= rule.max
            else No(f"{name} {said} is above the largest allowed, {limit}")
        )
    if rule.not_worse_than is not None:
        parts.append(_compare(name, rule, value, incumbent.incumbents.get(rule.not_worse_than), rule.not_worse_than))
    return all_of(parts)


def _compare(name: str, rule: Rule, value: float, other: Incumbent | None, stage: str) -> Verdict:
    if other is None:
        return Yes(f"{name} {numbers(value)[0]}, and {stage} is empty")
    theirs = _value(name, other.evidence)
    if theirs is None or not math.isfinite(theirs):
        return NotEnough(
            f"metric {name!r} of {other.label} in {stage}, to compare with",
            f"remove not-worse-than for one version, or place one that has {name!r} in {stage}",
            "who owns stageway.yml",
        )
    loss = theirs - value if _higher_is_better(name, rule) else value - theirs
    said, other_said = numbers(value, theirs)
    against = f"{other.label} in {stage} ({other_said})"
    if loss <= 0:
        return Yes(f"{name} {said} is not worse than {against}")
    if theirs == 0:
        return No(f"{name} {said} is worse than {against}; a share of 0 is 0, so no tolerance applies")
    share = loss / abs(theirs)
    if share <= rule.tolerance + ROUNDING:
        return Yes(f"{name} {said} is worse than {against} by {percent(share)}, within {percent(rule.tolerance)}")
    allowed = f", more than {percent(rule.tolerance)}" if rule.tolerance else ""
    return No(f"{name} {said} is worse than {against} by {percent(share, rule.tolerance)}{allowed}")
