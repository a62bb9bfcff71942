"""The trigger model-version: versions as events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from stageway import plugins
from stageway.config.workspace import Workspace
from stageway.errors import TryAgainError
from stageway.events import version_created
from stageway.registries.base import NewVersion
from stageway.registries.mlflow import MlflowRegistry
from stageway.release import Model
from stageway.triggers.model_version import ModelVersionTrigger, Options


@pytest.fixture
def registry(make_workspace: Callable[..., Workspace]) -> MlflowRegistry:
    return MlflowRegistry(make_workspace())


@pytest.fixture
def registered(registry: MlflowRegistry, tmp_path: Path) -> Callable[..., Model]:
    def register(name: str = "diabetes", **tags: str) -> Model:
        path = tmp_path / "model.bin"
        path.write_bytes(path.read_bytes() + b"." if path.exists() else b".")
        return registry.register(NewVersion(name=name, path=path, tags=tags)).model

    return register


def trigger(registry: MlflowRegistry, *models: str, **options: object) -> ModelVersionTrigger:
    return ModelVersionTrigger(Options.model_validate(options), models or ("diabetes",), registry)


def test_the_trigger_is_found_by_its_name() -> None:
    assert plugins.load("trigger", "model-version") is ModelVersionTrigger


def test_versions_of_all_models_are_events_oldest_first(
    registry: MlflowRegistry, registered: Callable[..., Model]
) -> None:
    made = [registered("a"), registered("b"), registered("a"), registered("other")]
    events = list(trigger(registry, "a", "b").events(None))
    assert [event.model for event in events] == [one.id for one in made[:3]]
    assert events == [version_created(one.id) for one in made[:3]]


def test_a_model_without_versions_has_no_events(registry: MlflowRegistry) -> None:
    assert list(trigger(registry).events(None)) == []


def test_events_since_a_time_miss_none_and_old_ones_are_left_out(
    registry: MlflowRegistry, registered: Callable[..., Model]
) -> None:
    made = [registered() for _ in range(3)]
    for model in made:
        found = {event.model for event in trigger(registry).events(model.id.created)}
        assert found >= {one.id for one in made if one.id.created >= model.id.created}
    assert list(trigger(registry).events(made[-1].id.created + 3_600_000)) == []


def test_only_versions_with_all_tags_are_events(registry: MlflowRegistry, registered: Callable[..., Model]) -> None:
    registered()
    registered(candidate="no")
    wanted = registered(candidate="yes")
    both = registered(candidate="yes", team="a")
    one = trigger(registry, tags={"candidate": "yes"})
    assert [event.model for event in one.events(None)] == [wanted.id, both.id]
    two = trigger(registry, tags={"candidate": "yes", "team": "a"})
    assert [event.model for event in two.events(None)] == [both.id]


def test_a_tag_that_comes_long_after_its_version_is_not_missed(
    registry: MlflowRegistry, registered: Callable[..., Model]
) -> None:
    model = registered()
    later = model.id.created + 3_600_000
    by_tag = trigger(registry, tags={"candidate": "yes"})
    assert list(by_tag.events(later)) == []
    registry.set_tags(model.id, {"candidate": "yes"})
    assert list(by_tag.events(later)) == [version_created(model.id)]


def test_one_version_is_one_identity_and_its_namesake_another(
    registry: MlflowRegistry, registered: Callable[..., Model]
) -> None:
    first = registered()
    (before,) = trigger(registry).events(None)
    assert before == next(trigger(registry).events(None))
    registry.delete("diabetes:1")
    from mlflow import MlflowClient

    client: MlflowClient = registry._connection.client
    client.delete_registered_model("diabetes")
    assert registered().label == first.label
    (after,) = trigger(registry).events(None)
    assert after.identity != before.identity


@pytest.mark.parametrize("options", [{"policy": "all"}, {"tag": {"a": "b"}}, {"tags": {"a": True}}, {"tags": ["a"]}])
def test_options_that_are_none_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(options)


def test_the_newest_version_is_enough_unless_said_otherwise() -> None:
    assert Options().policy == "latest"
    assert Options.model_validate({"policy": "every"}).policy == "every"


def test_a_registry_that_is_away_is_to_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}}\n")
    workspace = Workspace.open(tmp_path, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    with pytest.raises(TryAgainError):
        list(trigger(MlflowRegistry(workspace)).events(None))
