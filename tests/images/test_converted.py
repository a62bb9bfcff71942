"""What a converter left is taken for what its model could have made of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stageway.images import converted
from stageway.images.converted import UnfitError, copy_form, read_answer

TIMES = {"original_us": 100.0, "accelerated_us": 8}
SPEED: dict[str, Any] = {"1": TIMES, "64": TIMES}
REPORT: dict[str, Any] = {
    "format": 1,
    "input": {"name": "rows", "type": "float64"},
    "methods": {"predict": "variable"},
    "outputs": {"predict": {"float64": {"rows": "float64", "shape": [], "type": "float64"}}},
    "rows": ["float64"],
    "nan": False,
    "tolerance": 1e-9,
    "compared": {"predict": {"rows": 2400, "largest_difference": 1.1e-15}},
    "generated": {"seed": 20, "range": 500},
    "samples": 0,
    "opset": {"ai.onnx": 21, "ai.onnx.ml": 3},
    "versions": {"onnxruntime": "1.20.0", "scikit-learn": "1.7.2"},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    (place / "form").mkdir(parents=True)
    (place / "form" / "model.onnx").write_bytes(b"onnx")
    (place / "form" / "report.json").write_text(json.dumps(REPORT))
    return place


@pytest.fixture
def content(tmp_path: Path) -> Path:
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


def told(place: Path, answer: Any) -> Any:
    (place / "answer.json").write_text(json.dumps(answer))
    return read_answer(place)


def test_a_verdict_is_one_sentence(place: Path) -> None:
    assert told(place, {"speed": SPEED}).sentence == "one row in 8 µs, the original takes 100 µs"
    assert told(place, {"reason": "not\n\x1b[1mfaster " + "x" * 1000}).sentence == "not ?[1mfaster " + "x" * 285


@pytest.mark.parametrize(
    "answer",
    [
        [1],
        {},
        {"speed": {}},
        {"speed": {"1": TIMES}},
        {"speed": {**SPEED, "1": {**TIMES, "accelerated_us": "x"}}},
        {"speed": {**SPEED, "64": {**TIMES, "accelerated_us": float("inf")}}},
        {"speed": {**SPEED, "1": {**TIMES, "original_us": 0}}},
        {"speed": SPEED, "reason": "both"},
        {"reason": 7},
        {"reason": "x" * 2**17},
    ],
)
def test_a_verdict_that_is_none_is_said(place: Path, answer: Any) -> None:
    with pytest.raises(UnfitError, match=r"the converter left answer\.json (that is none|of \d+ bytes)"):
        told(place, answer)


def test_only_the_two_files_of_a_form_are_copied(place: Path, content: Path) -> None:
    (place / "form" / "extra").symlink_to("/etc/hostname")
    (place / "form" / "more").mkdir()
    copy_form(place, content)
    assert {path.name: path.read_bytes() for path in content.iterdir()} == {
        "model.onnx": b"onnx",
        "report.json": json.dumps(REPORT).encode(),
    }


@pytest.mark.parametrize("name", ["model.onnx", "report.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large"])
def test_what_is_no_plain_file_of_a_form_is_not_copied(
    place: Path, content: Path, name: str, kind: str, tmp_path: Path
) -> None:
    path = place / "form" / name
    (tmp_path / name).write_bytes(path.read_bytes())
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(converted.LARGEST[name] + 1)
    with pytest.raises(UnfitError, match=f"the converter left .*{name}"):
        copy_form(place, content)


def test_a_form_elsewhere_is_not_copied(place: Path, content: Path, tmp_path: Path) -> None:
    (place / "form").rename(tmp_path / "elsewhere")
    (place / "form").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnfitError, match=r"no plain file report\.json"):
        copy_form(place, content)


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"methods": {}},
        {"methods": {"predict": "variable", "transform": "variable"}},
        {"rows": ["float64", "int64"]},
        {"tolerance": 0.1},
        {"compared": {"predict": {"rows": 3, "largest_difference": 0}}},
        {"compared": {"predict": {"rows": 2400, "largest_difference": 0.5}}},
        {"outputs": {"predict": {"float64": {"rows": "float64", "shape": [-1], "type": "float64"}}}},
        {"outputs": {"predict": {"float64": {"rows": "float64", "shape": [], "type": "V9999999999"}}}},
        {"more": "x"},
        {"nan": "yes"},
    ],
)
def test_a_report_that_is_none_is_not_copied(place: Path, content: Path, changed: Any) -> None:
    (place / "form" / "report.json").write_text(json.dumps(REPORT | changed))
    with pytest.raises(UnfitError, match=r"report\.json that is none"):
        copy_form(place, content)
    assert not list(content.iterdir())
