"""The dossier grows, goes there and back as JSON, and names the task that leaves what it lacks."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stageway.contract import Contract, infer
from stageway.dossier import Deployment, Dossier
from stageway.errors import ConfigError
from stageway.evidence import Evidence
from stageway.release import Model, ModelVersion, Release

VERSION = ModelVersion(registry="sqlite", name="diabetes", version="2", created=1)
FULL = Dossier(
    pipeline="diabetes",
    model=Model(id=VERSION, digest="sha256:m", metrics={"rmse": 53.4}, tags={"a": "é\n\"'"}),
    contract=Contract(infer({"data": [[1.0]]}), infer([1.0]), "samples").to_json(),
    release=Release(
        model=VERSION, model_digest="sha256:m", image_digest="sha256:i", serve_digest="s", contract_digest="c"
    ),
    evidence=(Evidence(kind="smoke", facts={"passed": True, "p95": 1.5}, release="r-1", stage="dev"),),
    deployments=(
        Deployment(stage="dev", target="local", service="diabetes-dev", endpoint="http://x", release="r-1", at=1),
    ),
)


def test_a_dossier_goes_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dossier.json"
    FULL.write(path)
    assert Dossier.read(path) == FULL
    assert Dossier.from_json(Dossier().to_json()) == Dossier()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, 5e-324, -0.0])
def test_a_metric_of_any_value_goes_there_and_back(value: float) -> None:
    evidence = Evidence(kind="metrics", facts={"rmse": value, "parts": [value, {"a": value}]})
    model = Model(id=VERSION, digest="sha256:m", metrics={"rmse": value})
    text = Dossier(model=model).with_evidence(evidence).to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = Dossier.from_json(text)
    assert repr(back.need_model().metrics["rmse"]) == repr(value)
    assert back.evidence == (evidence,)
    assert back.evidence[0].digest == evidence.digest


def test_a_dossier_is_never_changed_in_place() -> None:
    grown = FULL.having(pipeline="other").with_evidence(Evidence(kind="metrics", facts={}))
    assert FULL.pipeline == "diabetes"
    assert len(FULL.evidence) == 1
    assert (grown.pipeline, len(grown.evidence)) == ("other", 2)


def test_newer_evidence_replaces_older_of_its_kind_and_stage() -> None:
    again = Evidence(kind="smoke", facts={"passed": False}, stage="dev")
    elsewhere = Evidence(kind="smoke", facts={"passed": True}, stage="prod")
    assert FULL.with_evidence(again, elsewhere).evidence == (again, elsewhere)


def test_a_stage_has_one_deployment() -> None:
    newer = FULL.deployments[0].model_copy(update={"endpoint": "http://y"})
    assert FULL.deployed(newer).deployments == (newer,)
    assert FULL.deployed(newer).deployment("dev") == newer


@pytest.mark.parametrize(("fact", "task"), [("model", "register"), ("release", "package"), ("contract", "package")])
def test_what_it_lacks_is_named_with_the_task_that_leaves_it(fact: str, task: str) -> None:
    with pytest.raises(ConfigError, match=f"the dossier has no {fact}: run `stageway {task}` first"):
        getattr(Dossier(), f"need_{fact}")()
    getattr(FULL, f"need_{fact}")()


def test_a_stage_that_nothing_was_placed_in_is_named() -> None:
    with pytest.raises(ConfigError, match="no deployment in 'prod': run `stageway deploy --stage prod`"):
        FULL.deployment("prod")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "invalid json"),
        ("{", "invalid json"),
        ("[]", "the file"),
        ('{"modell": {}}', "modell: extra inputs are not permitted"),
        ('{"model": {"id": {}}}', "model.id.registry: field required"),
        ('{"format": 2}', "format 2 is from a newer Stageway; upgrade this one"),
    ],
)
def test_a_file_that_is_no_dossier_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "dossier.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Dossier.read(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_says_which_command_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such dossier; `stageway register --dossier"):
        Dossier.read(tmp_path / "dossier.json")


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "dossier.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        Dossier.read(path)


WRITER = """
import sys
from pathlib import Path
from stageway.dossier import Dossier
path = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    Dossier(pipeline=str(number) * 10_000).write(path)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "dossier.json"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        while not path.exists():
            assert writer.poll() is None
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert Dossier.read(path).pipeline


def test_a_write_that_fails_leaves_the_file_it_found(tmp_path: Path) -> None:
    path = tmp_path / "dossier.json"
    FULL.write(path)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        FULL.having(pipeline="\ud800").write(path)
    assert Dossier.read(path) == FULL
    assert [one.name for one in tmp_path.iterdir()] == ["dossier.json"]


def test_keys_are_written_for_people(tmp_path: Path) -> None:
    FULL.write(tmp_path / "dossier.json")
    text = (tmp_path / "dossier.json").read_text()
    assert text.startswith('{\n  "format": 1,')
    assert json.loads(text)["model"]["id"]["name"] == "diabetes"
