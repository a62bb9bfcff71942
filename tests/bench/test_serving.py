"""The bench of the scoring server tells right replies from wrong ones, and reached goals from missed ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def load() -> ModuleType:
    from bench.serving import load

    return load


@pytest.mark.parametrize(
    "reply",
    [
        {"predict": [1.0, 2.0]},
        {"predictions": [1.0, 2.0]},
        {"outputs": [{"name": "predict", "data": [1.0, 2.0]}]},
        [1.0, 2.0],
        [[1.0], [2.0]],
    ],
    ids=str,
)
def test_predictions_are_found_in_the_replies_of_all_peers(load: ModuleType, reply: Any) -> None:
    assert load.numbers(reply) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("status", "reply", "said"),
    [
        (200, b'{"predict": [10.0, 20.0]}', ""),
        (200, b'{"predict": [10.0000001, 20.0]}', ""),
        (200, b'{"predict": [20.0, 10.0]}', "20.0 in place of 10.0"),
        (200, b'{"predict": [10.001, 20.0]}', "10.001 in place of 10.0"),
        (200, b'{"predict": [10.0]}', "1 predictions for 2 rows"),
        (200, b'{"message": "no"}', "not a prediction"),
        (200, b"<html>", "not a prediction"),
        (503, b"busy", "status 503"),
    ],
)
def test_a_wrong_reply_is_called_wrong(load: ModuleType, status: int, reply: bytes, said: str) -> None:
    from bench.serving.models import TOLERANCE, Trained
    from bench.serving.peers import NAMED

    trained = Trained("ridge", Path(), [[1.0], [2.0]], [10.0, 20.0])
    found = load.Asking(NAMED["stageway"], trained, 1, TOLERANCE).problem(status, reply, [0, 1])
    assert found.startswith(said)
    assert bool(found) is bool(said)


@pytest.mark.parametrize(("theirs", "reached"), [(100.0, True), (50.0, True), (1000.0, False), (None, None)])
def test_a_goal_is_reached_missed_or_not_measured(theirs: float | None, reached: bool | None) -> None:
    from bench.serving.figures import RIDGE_64, Figures, Sample, goals

    def sample(peer: str, rate: float) -> Sample:
        return Sample(peer, *RIDGE_64, rate=rate, p50=1, p99=2, bad=0, broken=0, checked=1, wrong=0, per_cpu=rate)

    figures = Figures([sample("stageway", 1500.0)])
    if theirs is not None:
        figures.samples.append(sample("azml", theirs))
    first = goals(figures)[0]
    assert first.reached is reached
    assert first.limit == 15


def test_rounds_are_joined_by_their_median_and_wrong_replies_are_summed() -> None:
    from bench.serving.figures import RIDGE_64, Figures, Sample

    rates, figures = (10.0, 90.0, 30.0), Figures()
    for rate in rates:
        figures.samples.append(
            Sample("azml", *RIDGE_64, rate=rate, p50=1, p99=2, bad=0, broken=0, checked=5, wrong=1, per_cpu=rate)
        )
    found = figures.of("azml", RIDGE_64)
    assert found is not None
    assert (found.rate, found.wrong, found.checked) == (30.0, 3, 15)


def test_the_page_gets_the_figures_between_its_marks(tmp_path: Path) -> None:
    from bench.serving.report import BEGIN, END, rewrite

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rewrite(page, "new")
    rewrite(page, "newer")
    assert page.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"
    assert BEGIN in (ROOT / "docs" / "performance.md").read_text()
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        rewrite(page, "new")


def test_figures_come_back_from_their_file(tmp_path: Path) -> None:
    from bench.serving.__main__ import _read
    from bench.serving.figures import RIDGE_64, Figures, Running, Sample

    sample = Sample("azml", *RIDGE_64, rate=1.5, p50=1, p99=2, bad=0, broken=0, checked=5, wrong=1, per_cpu=3)
    figures = Figures([sample], [Running("azml", "ridge", 10.0, 1.0, 2)], {"litserve": "gone"}, {"date": "today"})
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(figures.to_json()))
    assert _read(path) == figures
