"""uv's words become one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from stageway.errors import PackagingError, TryAgainError
from stageway.images import uv_tool

OLD = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because you require numpy==1.26.4 and numpy>=2, we can conclude that your
      requirements are unsatisfiable.

      hint: something else
"""
NEW = """\
error: No solution found when resolving dependencies
  cause: Because you require numpy==1.26.4 and numpy>=2, we can conclude that your requirements are unsatisfiable.

hint: something else
"""


@pytest.mark.parametrize("text", [OLD, NEW])
def test_the_innermost_cause_is_the_sentence(text: str) -> None:
    assert uv_tool.sentence(text) == (
        "because you require numpy==1.26.4 and numpy>=2, we can conclude that your requirements are unsatisfiable"
    )


def test_silence_is_said() -> None:
    assert uv_tool.sentence("") == "uv failed without a word"


def test_a_failure_is_said_in_the_tools_own_words(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"^requirements: expected .* found `b` foo bar") as caught:
        uv_tool.run(["pip", "compile", "-"], cwd=tmp_path, stdin="foo bar\n", failing="requirements")
    assert "Couldn't parse requirement" in caught.value.detail


def test_an_index_that_is_away_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(TryAgainError, match="the package index does not answer"):
        uv_tool.run(["pip", "compile", "-", "--no-cache"], cwd=tmp_path, stdin="orjson\n", failing="requirements")


def test_the_index_that_pip_was_told_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "no-index-here").as_uri())
    with pytest.raises(PackagingError) as caught:
        uv_tool.run(["pip", "compile", "-", "--no-cache"], cwd=tmp_path, stdin="orjson\n", failing="requirements")
    assert "orjson" in caught.value.message
