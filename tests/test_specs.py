"""Units are read into numbers, and a bare number where a unit is needed is refused with an example."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stageway.specs import Duration, Memory, PipelineSpec, ServeSpec, Share, mebibytes, seconds, share


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("100ms", 0.1),
        ("10s", 10),
        ("5m", 300),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1.5s", 1.5),
        ("2 h", 7200),
        ("0s", 0),
    ],
)
def test_durations_are_seconds(written: str, read: float) -> None:
    assert seconds(written) == pytest.approx(read)


@pytest.mark.parametrize("written", [10, 10.0, "10", "s", "-1s", "1w", "1e3s", "1s 2s", "", None, True, ["1s"], "١"])
def test_what_is_no_duration_is_refused_with_examples(written: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 100ms, 10s, 5m, 24h or 7d"):
        seconds(written)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("512MiB", 512), ("1GiB", 1024), ("1G", 1024), ("512M", 512), ("512Mi", 512), ("1024Ki", 1), ("1024K", 1),
        ("1GB", 1e9 / 2**20), ("1MB", 1e6 / 2**20), ("1.5GiB", 1536),
    ],
)  # fmt: skip
def test_memory_is_mebibytes(written: str, read: float) -> None:
    assert mebibytes(written) == pytest.approx(read)


@pytest.mark.parametrize("written", [512, "512", "1TiB", "-1GiB", "GiB", None, True])
def test_what_is_no_memory_is_refused_with_examples(written: Any) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory; write 512MiB or 1GiB"):
        mebibytes(written)


@pytest.mark.parametrize(("written", "read"), [("2%", 0.02), ("0%", 0), ("100 %", 1), (0.02, 0.02), (1, 1), (0, 0)])
def test_shares_are_fractions(written: Any, read: float) -> None:
    assert share(written) == pytest.approx(read)


@pytest.mark.parametrize("written", [2, -0.1, "2", "-2%", "%", None, True])
def test_what_is_no_share_is_refused_with_examples(written: Any) -> None:
    with pytest.raises(ValueError, match=r"is not a share; write 2% or 0\.02"):
        share(written)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_what_was_read_once_is_not_read_again(number: int, unit: str) -> None:
    adapter = TypeAdapter(Duration)
    read = adapter.validate_python(f"{number}{unit}")
    assert adapter.validate_python(read) == read


@pytest.mark.parametrize("kind", [Duration, Memory])
def test_a_file_must_name_its_unit(kind: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(10.0, context={"written": True})


def test_a_share_of_a_stored_definition_stays() -> None:
    assert TypeAdapter(Share).validate_python(0.02) == 0.02


PIPELINE = {"model": "diabetes", "stages": {"dev": {}, "test": {"smoke-test": {"p95": "100ms"}}, "prod": {}}}


def test_a_pipeline_goes_there_and_back() -> None:
    spec = PipelineSpec.model_validate(PIPELINE)
    assert PipelineSpec.model_validate_json(spec.model_dump_json()) == spec
    assert PipelineSpec.model_validate_json(spec.model_dump_json(by_alias=True)) == spec


def test_stages_are_a_way_in_their_order() -> None:
    spec = PipelineSpec.model_validate(PIPELINE)
    assert [spec.before(stage) for stage in spec.stages] == [None, "dev", "test"]
    assert [spec.after(stage) for stage in spec.stages] == ["test", "prod", None]


def test_a_pipeline_of_several_models_is_named_after_all() -> None:
    spec = PipelineSpec.model_validate({"models": ["a", "b"], "stages": {"dev": {}}})
    assert (spec.name, spec.model_names) == ("a+b", ("a", "b"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "../x"}, "a model cannot be called '../x'"),
        ({"model": "a@b"}, "a model cannot be called 'a@b'"),
        ({"models": ["b"]}, "write one of model: NAME or models"),
        ({"model": None}, "write one of model: NAME or models"),
        ({"stages": {}}, "at least one stage is needed"),
        ({"stages": {"../dev": {}}}, "a stage cannot be called '../dev'"),
        ({"stages": {"dev\n": {}}}, "a stage cannot be called"),
        ({"stages": {"d" * 21: {}}}, "at most 20"),
        ({"stages": {"dev": {"port": 70_000}}}, "less than or equal to 65535"),
        ({"stages": {"dev": {"resources": {"cpu": 0, "memory": "1GiB"}}}}, "greater than 0"),
        ({"stages": {"dev": {"tarket": "local"}}}, "Extra inputs"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PipelineSpec.model_validate({**PIPELINE, **change})
    assert says in str(caught.value)


@pytest.mark.parametrize(("written", "read"), [("auto", "auto"), ("off", "off"), (False, "off")])
def test_off_is_a_word_though_yaml_reads_a_truth_value(written: object, read: str) -> None:
    assert ServeSpec.model_validate({"accelerate": written, "batching": written}).accelerate == read


@pytest.mark.parametrize("keys", [{"accelerate": True}, {"accelerate": "on"}, {"batching": "yes"}, {"batch-rows": 0}])
def test_what_acceleration_and_batching_cannot_be_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServeSpec.model_validate(keys)
