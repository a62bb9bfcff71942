"""``deploy`` places a release in a stage; place, registry and history agree afterwards, whatever came between."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from stageway.dossier import Dossier
from stageway.errors import (
    ConfigError,
    PackagingError,
    RefusedError,
    RegistryError,
    TryAgainError,
    WaitingError,
)
from stageway.tasks.deploy import deploy


def test_a_release_answers_in_its_stage_and_everybody_says_so(project: Any) -> None:
    grown = deploy(project.version(1), project.workspace, stage="dev")
    assert project.agrees("dev") == "diabetes:1"
    reply = requests.get(grown.deployment("dev").endpoint, timeout=5)
    assert reply.headers["x-stageway-release"] == grown.need_release().id


def test_twice_is_as_once(project: Any) -> None:
    dossier = project.version(1)
    first = deploy(dossier, project.workspace, stage="dev")
    again = deploy(first, project.workspace, stage="dev")
    assert again.deployment("dev").endpoint == first.deployment("dev").endpoint
    assert len(project.world.services) == 1
    with project.store() as opened:
        assert [row.how for row in opened.stages.history("dev")] == ["deployed"]


def test_it_works_from_the_dossiers_file(project: Any) -> None:
    read = Dossier.from_json(project.version(1).to_json())
    deploy(read, project.workspace, stage="dev")
    assert project.agrees("dev") == "diabetes:1"


def test_the_store_knows_the_release_and_its_evidence_afterwards(project: Any) -> None:
    dossier = deploy(project.version(1, metrics={"rmse": 53.4}), project.workspace, stage="dev")
    with project.store() as opened:
        assert opened.releases.get(dossier.need_release().id) == dossier.release
        evidence = opened.evidence.of(dossier.need_release().id)
    assert evidence["metrics"].facts == {"rmse": 53.4}
    assert evidence["contract"].facts == dossier.contract


@pytest.mark.parametrize("call", ["apply", "set_tags", "set_alias", "find", "observe"])
def test_whoever_is_interrupted_makes_it_right_by_deploying_again(project: Any, call: str) -> None:
    deploy(project.version(1), project.workspace, stage="dev")
    second = project.version(2)
    project.world.faults[call] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        deploy(second, project.workspace, stage="dev")
    deploy(second, project.workspace, stage="dev")
    assert project.agrees("dev") == "diabetes:2"


def test_a_registry_that_is_away_can_be_tried_again(project: Any) -> None:
    project.world.faults["set_alias"] = TryAgainError("registry does not answer")
    dossier = project.version(1)
    with pytest.raises(TryAgainError):
        deploy(dossier, project.workspace, stage="dev")
    deploy(dossier, project.workspace, stage="dev")
    assert project.agrees("dev") == "diabetes:1"


def test_a_release_that_does_not_start_leaves_the_old_one_serving(project: Any) -> None:
    deploy(project.version(1), project.workspace, stage="dev")
    with pytest.raises(RefusedError, match="did not start") as caught:
        deploy(project.version(2, starts=False, log=["boom"]), project.workspace, stage="dev")
    assert caught.value.detail == "boom"
    assert project.agrees("dev") == "diabetes:1"


def test_a_version_that_was_deleted_meanwhile_is_not_placed(project: Any) -> None:
    dossier = project.version(1)
    del project.world.models["diabetes:1"]
    with pytest.raises(RegistryError, match="diabetes:1: this version was deleted"):
        deploy(dossier, project.workspace, stage="dev")
    assert project.holds("dev") is None


def test_a_version_that_was_registered_again_is_another_one(project: Any) -> None:
    dossier = project.version(1)
    model = project.world.models["diabetes:1"]
    again = model.id.model_copy(update={"created": 99_999})
    project.world.models["diabetes:1"] = model.model_copy(update={"id": again})
    with pytest.raises(RegistryError, match="registered again"):
        deploy(dossier, project.workspace, stage="dev")


def test_a_bundle_that_is_gone_is_named_with_the_command_that_makes_it(project: Any) -> None:
    dossier = project.version(1)
    image = dossier.need_release().image_digest.removeprefix("sha256:")
    (project.cache / "bundles" / image / "bundle.json").unlink()
    with pytest.raises(PackagingError, match="run `stageway package diabetes:1`"):
        deploy(dossier, project.workspace, stage="dev")


@pytest.mark.parametrize("fact", ["model", "release"])
def test_what_the_dossier_lacks_is_named_with_the_task_that_leaves_it(project: Any, fact: str) -> None:
    dossier = project.version(1).having(**{fact: None})
    with pytest.raises(ConfigError, match=f"the dossier has no {fact}: run `stageway"):
        deploy(dossier, project.workspace, stage="dev")


def test_an_unknown_stage_is_refused_by_name(project: Any) -> None:
    with pytest.raises(ConfigError, match="no stage is called 'staging'"):
        deploy(project.version(1), project.workspace, stage="staging")


STAGE = "model: diabetes\nserve: {{entry-script: score.py}}\nstages:\n  dev: {{target: loopback, {}}}\n"


@pytest.mark.parametrize(
    ("capabilities", "setting", "says"),
    [
        ((), "rollout: {canary: [5%, 100%]}", "stages.dev.rollout.canary: [5%, 100%]: target 'loopback' cannot share"),
        (("weights",), "rollout: {canary: [5%, 100%]}", "a gradual rollout is not there yet; leave it out"),
        ((), "rollout: {bake: 10m}", "stages.dev.rollout.bake: 600s"),
        ((), "resources: {cpu: 1, memory: 1GiB}", "does not enforce cpu and memory; write `resources: auto`"),
        ((), "gates: [approval: {count: 2}]", "stages.dev.gates.approval: count: 2"),
    ],
)
def test_a_setting_that_would_not_be_kept_is_refused_with_an_alternative(
    project: Any, capabilities: tuple[str, ...], setting: str, says: str
) -> None:
    project.world.capabilities = frozenset(capabilities)
    project.write(STAGE.format(setting))
    with pytest.raises(ConfigError) as caught:
        deploy(project.version(1), project.workspace, stage="dev")
    assert says in caught.value.message
    assert caught.value.message.startswith("stageway.yml: stages.dev.")
    assert project.holds("dev") is None


def test_resources_that_are_enforced_reach_the_target(project: Any) -> None:
    project.world.capabilities = frozenset({"resources"})
    project.write(STAGE.format("resources: {cpu: 2, memory: 1GiB}, workers: 3, drain-timeout: 5s"))
    deploy(project.version(1), project.workspace, stage="dev")
    config = project.world.applied[-1].config
    assert (config.cpu, config.memory_mib, config.workers, config.drain_timeout) == (2.0, 1024.0, 3, 5.0)


def test_automatic_resources_come_from_the_profile(project: Any, measured: Any) -> None:
    project.world.capabilities = frozenset({"resources"})
    dossier = project.version(1)
    with pytest.raises(ConfigError, match="run `stageway profile` first"):
        deploy(dossier, project.workspace, stage="dev")
    deploy(dossier.having(profile=measured), project.workspace, stage="dev")
    assert project.world.applied[-1].config.memory_mib == measured.recommended_memory_mib


@pytest.mark.parametrize(("rmse", "held"), [(59.0, "diabetes:1"), (61.0, None)])
def test_gates_of_a_first_stage_are_judged_too(project: Any, rmse: float, held: str | None) -> None:
    project.write(STAGE.format("gates: [metric: {rmse: {max: 60}}]"))
    dossier = project.version(1, metrics={"rmse": rmse})
    if held is None:
        with pytest.raises(RefusedError, match="metric: rmse 61 is above the largest allowed, 60"):
            deploy(dossier, project.workspace, stage="dev")
    else:
        deploy(dossier, project.workspace, stage="dev")
    assert project.holds("dev") == held


def test_a_held_stage_waits_for_a_person(project: Any) -> None:
    with project.store() as opened:
        opened.holds.set("dev", "holiday freeze", "ann")
    with pytest.raises(WaitingError, match="ann: holiday freeze"):
        deploy(project.version(1), project.workspace, stage="dev")
