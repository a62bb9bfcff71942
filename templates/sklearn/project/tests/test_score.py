"""What clients rely on: the entry script's replies, with a model that train.py makes here and now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import score
import train

SAMPLES = Path(__file__).parent.parent / "samples"
REQUESTS = sorted(path for path in SAMPLES.glob("*.json") if not path.name.endswith(".expected.json"))


@pytest.fixture(scope="session", autouse=True)
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "outputs"
    train.main(["--output", str(folder)])
    return folder


@pytest.mark.parametrize("request_file", REQUESTS, ids=lambda path: path.stem)
def test_a_sample_is_answered_as_expected(request_file: Path) -> None:
    expected = json.loads(request_file.with_name(f"{request_file.stem}.expected.json").read_text())
    assert score.run(request_file.read_text()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("request_file", REQUESTS, ids=lambda path: path.stem)
def test_every_row_is_answered_with_one_number(request_file: Path) -> None:
    rows = json.loads(request_file.read_text())["data"]
    reply = score.run(request_file.read_text())
    assert len(reply) == len(rows)
    assert all(isinstance(one, float) for one in reply)


@pytest.mark.parametrize("body", ["not json", "[]", "{}", '{"data": [[1, 2]]}', '{"data": [["a"]]}', '{"data": 1}'])
def test_a_wrong_request_is_an_exception_and_never_a_reply(body: str) -> None:
    with pytest.raises(ValueError):
        score.run(body)


def test_training_writes_what_is_registered(outputs: Path) -> None:
    metrics = json.loads((outputs / "metrics.json").read_text())
    assert 50 < metrics["rmse"] < 60
    assert {path.name for path in (outputs / "samples").iterdir()} >= {path.name for path in REQUESTS}


def test_the_same_arguments_give_the_same_model(outputs: Path, tmp_path: Path) -> None:
    train.main(["--output", str(tmp_path / "again")])
    first, second = (folder / "model" / "model.joblib" for folder in (outputs, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()
