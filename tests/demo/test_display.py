"""The demo shows every phase once when it has ended, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from stageway.demo.display import Display, LiveDisplay


def test_elsewhere_a_phase_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.chapter("version 1")
    with display.phase("train") as said:
        display.note("reading data")
        said.append("rmse 55.5")
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["", "version 1"]
    assert out.splitlines()[2].startswith("  train           rmse 55.5 (0.")
    assert len(out.splitlines()) == 3


def test_phases_are_kept_with_their_seconds() -> None:
    display = Display()
    display.chapter("version 1")
    display.begin("train")
    display.end("rmse 55.5")
    [phase] = display.phases
    assert (phase.heading, phase.name, phase.said) == ("version 1", "train", "rmse 55.5")
    assert 0 <= phase.seconds < 60


def test_on_a_terminal_the_phase_that_goes_on_moves_and_then_stands() -> None:
    screen = io.StringIO()
    display = LiveDisplay(Console(file=screen, force_terminal=True, width=80, highlight=False))
    display.begin("profile")
    display.note("measuring [1] request after the other")
    display.close()
    moving = screen.getvalue()
    assert "profile" in moving
    assert "measuring [1] request" in moving
    display.begin("gates")
    display.end("metric: no", good=False)
    display.close()
    assert "✗" in screen.getvalue()
    assert "metric: no" in screen.getvalue()


def test_a_line_is_written_exactly_as_it_is_on_a_terminal_too() -> None:
    screen = io.StringIO()
    display = LiveDisplay(Console(file=screen, force_terminal=True, width=20, highlight=False))
    display.line("requests during the update: 1234, 0 failed")
    assert "requests during the update: 1234, 0 failed\n" in screen.getvalue()
