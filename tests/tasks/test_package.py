"""The task ``package``: from a version to a release, on real services."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stageway import output
from stageway.bundle import Bundle
from stageway.contract import Contract
from stageway.dossier import Dossier
from stageway.errors import ConfigError, RefusedError, RegistryError
from stageway.evidence import Evidence
from stageway.tasks.package import package
from stageway.tasks.profile import profile


@pytest.fixture
def notes() -> Iterator[list[str]]:
    heard: list[str] = []
    with output.notes_to(heard.append):
        yield heard


def evidence(dossier: Dossier) -> dict[str, Evidence]:
    return {one.kind: one for one in dossier.evidence}


def test_a_release_names_the_model_the_image_the_serve_config_and_the_contract(times: Any, notes: list[str]) -> None:
    dossier = times.version()
    packaged = package(dossier, times.workspace())
    release = packaged.need_release()
    assert release.label == "times:1"
    assert release.model_digest == dossier.need_model().digest
    assert release.contract_digest == packaged.need_contract().digest == Contract().digest
    assert [layer.kind for layer in release.layers] == ["dependencies", "serving", "model", "source"]
    bundle = Bundle.read(times.cache / "bundles" / release.image_digest.removeprefix("sha256:"))
    assert bundle.digest == release.image_digest
    assert bundle.manifest.serve_digest == release.serve_digest
    assert "contract: nobody declares one" in notes


def test_packaging_again_gives_the_same_release_and_says_that_layers_were_reused(times: Any, notes: list[str]) -> None:
    dossier = times.version()
    first = package(dossier, times.workspace())
    again = package(first, times.workspace())
    assert again == first
    built = [note for note in notes if note.startswith("image of times:1")][-1]
    assert built.count("reused") == 4
    assert "made" not in built


def test_the_contract_is_evidence_about_the_release(times: Any) -> None:
    times.sample("one", {"data": [1]}, [2])
    times.serve(entry_script="score.py", samples="samples")
    packaged = package(times.version(), times.workspace())
    found = evidence(packaged)["contract"]
    assert found.release == packaged.need_release().id
    assert found.facts == packaged.contract
    assert found.facts["source"] == "samples"


def test_what_was_known_before_becomes_evidence_about_the_release(times: Any) -> None:
    known = Evidence(kind="metrics", facts={"rmse": 1.0})
    packaged = package(times.version().with_evidence(known), times.workspace())
    assert evidence(packaged)["metrics"].release == packaged.need_release().id


def test_evidence_about_another_release_is_left_behind(times: Any) -> None:
    packaged = package(times.version(), times.workspace())
    smoke = Evidence(kind="smoke", facts={"passed": True}, release=packaged.need_release().id, stage="dev")
    metrics = Evidence(kind="metrics", facts={"rmse": 1.0}, release=packaged.need_release().id)
    times.write("score.py", "def run(data): return 1\n")
    again = package(packaged.with_evidence(smoke, metrics), times.workspace())
    assert again.need_release().id != packaged.need_release().id
    assert set(evidence(again)) == {"metrics", "contract"}
    assert {one.release for one in again.evidence} == {again.need_release().id}


def test_a_profile_of_this_image_goes_with_it_and_spares_the_second_start(times: Any) -> None:
    profiled = profile(times.version(), times.workspace(), budget="100ms")
    packaged = package(profiled, times.workspace())
    assert evidence(packaged)["profile"].release == packaged.need_release().id
    assert packaged.profile == profiled.profile


def test_a_profile_of_another_image_is_left_behind(times: Any, notes: list[str]) -> None:
    profiled = profile(times.version(), times.workspace(), budget="100ms")
    times.write("score.py", "def run(data): return 1\n")
    packaged = package(profiled, times.workspace())
    assert packaged.profile is None
    assert "profile" not in evidence(packaged)
    assert any("the profile is of another image" in note for note in notes)


def test_the_same_version_with_another_script_is_another_release(times: Any) -> None:
    dossier = times.version()
    one = package(dossier, times.workspace()).need_release()
    times.write("score.py", "def run(data): return 1\n")
    other = package(dossier, times.workspace()).need_release()
    assert one.id != other.id
    assert one.model_digest == other.model_digest


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("import no_such_module\n", "score.py does not import"),
        ("def init(): pass\n", "score.py has no function run"),
        ("def init(): raise RuntimeError('no weights')\ndef run(data): ...\n", "no weights"),
    ],
)
def test_a_service_that_does_not_start_is_no_release(times: Any, script: str, sentence: str) -> None:
    times.write("score.py", script)
    with pytest.raises(RefusedError, match=sentence) as caught:
        package(times.version(), times.workspace())
    assert caught.value.detail


def test_a_version_that_was_deleted_meanwhile_is_said(times: Any) -> None:
    dossier = times.version()
    times.shelf.delete("times:1")
    with pytest.raises(RegistryError, match=r"times:1 is not in the registry any more"):
        package(dossier, times.workspace())


def test_a_version_that_was_registered_again_is_not_the_one_of_the_dossier(times: Any) -> None:
    dossier = times.version()
    times.shelf.delete("times:1")
    again = times.version({"factor.json": "5"})
    assert again.need_model().label == dossier.need_model().label
    with pytest.raises(RegistryError, match=r"deleted and registered again"):
        package(dossier, times.workspace())


def test_a_dossier_without_a_version_names_the_task_that_leaves_it(times: Any) -> None:
    with pytest.raises(ConfigError, match="the dossier has no model: run `stageway register` first"):
        package(Dossier(), times.workspace())
