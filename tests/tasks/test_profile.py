"""The task ``profile``: measure the real service of a version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stageway import output
from stageway.errors import ConfigError, RefusedError
from stageway.evidence import Profile
from stageway.tasks.profile import profile


@pytest.fixture
def notes() -> Iterator[list[str]]:
    heard: list[str] = []
    with output.notes_to(heard.append):
        yield heard


@pytest.fixture
def sampled(times: Any) -> Any:
    """The project with one sample."""
    times.sample("one", {"data": [1, 2]}, [2, 4])
    times.serve(entry_script="score.py", samples="samples")
    return times


def test_a_profile_is_left_as_fact_and_as_evidence(sampled: Any, notes: list[str]) -> None:
    dossier = profile(sampled.version(), sampled.workspace(), budget="500ms")
    found = dossier.profile
    assert found is not None
    assert found.requests > 0
    assert found.errors == 0
    assert found.budget_seconds == 0.5
    (evidence,) = dossier.evidence
    assert (evidence.kind, evidence.release) == ("profile", None)
    assert Profile.model_validate(evidence.facts) == found
    assert notes[-1].startswith("measured: p50 ")


def test_the_contract_that_the_service_says_is_left_too(sampled: Any) -> None:
    dossier = profile(sampled.version(), sampled.workspace(), budget="100ms")
    assert dossier.need_contract().source == "samples"


def test_without_samples_the_note_says_what_was_not_measured(times: Any, notes: list[str]) -> None:
    dossier = profile(times.version(), times.workspace(), budget="60s")
    assert dossier.profile is not None
    assert dossier.profile.requests == 0
    assert notes[-1] == "no samples, start and memory only; name some with serve.samples"


def test_failed_requests_are_said(sampled: Any, notes: list[str]) -> None:
    sampled.write("score.py", "def run(data): raise ValueError('secret of the model')\n")
    dossier = profile(sampled.version(), sampled.workspace(), budget="300ms")
    assert dossier.profile is not None
    assert dossier.profile.errors == dossier.profile.requests > 0
    assert "requests failed; one: status 500" in notes[-1]


def test_the_budget_comes_from_the_file_when_none_is_given(sampled: Any) -> None:
    text = (sampled.root / "stageway.yml").read_text()
    sampled.write("stageway.yml", text.replace('"stages"', '"profile": {"budget": "200ms"}, "stages"'))
    dossier = profile(sampled.version(), sampled.workspace())
    assert dossier.profile is not None
    assert dossier.profile.budget_seconds == 0.2


@pytest.mark.parametrize("budget", ["10", "ten seconds", "0s", "-1s", ""])
def test_a_budget_that_is_no_duration_is_refused(times: Any, budget: str) -> None:
    with pytest.raises(ConfigError, match="--budget: "):
        profile(times.version(), times.workspace(), budget=budget)


def test_a_service_that_does_not_start_is_refused(sampled: Any) -> None:
    sampled.write("score.py", "def init(): raise RuntimeError('no weights')\ndef run(data): ...\n")
    with pytest.raises(RefusedError, match="no weights"):
        profile(sampled.version(), sampled.workspace(), budget="1s")
