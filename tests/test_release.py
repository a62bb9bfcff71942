"""Names that could leave a folder or break a reference are refused; ids are digests of exactly what a release is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageway.errors import ConfigError
from stageway.release import Layer, ModelVersion, Reference, Release, check_model_name, slug

names = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,40}", fullmatch=True).filter(lambda name: ".." not in name)
aliases = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}", fullmatch=True)

VERSION = ModelVersion(registry="sqlite:///mlflow.db", name="diabetes", version="2", created=1_700_000_000_000)
RELEASE = Release(
    model=VERSION, model_digest="sha256:m", image_digest="sha256:i", serve_digest="sha256:s", contract_digest="sha256:c"
)


@given(names, st.none() | st.integers(1, 10**6), aliases)
def test_a_reference_is_read_as_it_is_written(name: str, version: int | None, alias: str) -> None:
    for text in (name, f"{name}:{version or 1}", f"{name}@{alias}"):
        assert str(Reference.parse(text)) == text
    assert Reference.parse(f"{name}@{alias}").alias == alias


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        ".",
        "a..b",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a\0b",
        "a\n",
        "\n",
        "a b",
        "a@b",
        "a:b",
        "a%2fb",
        "~root",
        "-rf",
        "",
        "é",
        "a" * 256,
        "a'; drop table x",
        "$(id)",
    ],
)
def test_a_name_that_could_leave_its_folder_or_break_a_reference_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_model_name(name)
    assert f"a model cannot be called {name!r}" in caught.value.message
    assert "\n" not in caught.value.message


@given(names)
def test_v1_names_can_be_deployed(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "text",
    ["", ":1", "@prod", "a:", "a@", "a:1:2", "a@b@c", "a:x", "a:-1", "a:1@prod", "a@../x", "a@b\0", "a:1\n", "a@b\n",
     "a@-x", "../x:1", "a/b@prod", "a:" + "9" * 19],
)  # fmt: skip
def test_a_reference_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Reference.parse(text)
    assert "\n" not in caught.value.message


@given(st.text(max_size=60), st.text(max_size=60), st.integers(12, 63))
def test_different_names_have_different_slugs(one: str, other: str, longest: int) -> None:
    assert (slug(one, longest) == slug(other, longest)) == (one == other)


@given(st.text(max_size=80), st.integers(12, 63))
def test_a_slug_is_an_object_name_everywhere(name: str, longest: int) -> None:
    made = slug(name, longest)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made)
    assert len(made) <= longest
    assert slug(name, longest) == made


@given(st.text(max_size=60))
def test_no_name_can_be_chosen_that_is_anothers_slug(name: str) -> None:
    made = slug(name)
    assert made == name or slug(made) != made


def test_plain_names_stay_as_they_are() -> None:
    assert slug("diabetes-prod") == "diabetes-prod"
    assert slug("Diabetes-prod").startswith("diabetes-prod-")


def test_a_releases_id_is_the_digest_of_its_five_parts() -> None:
    assert re.fullmatch(r"r-[0-9a-f]{16}", RELEASE.id)
    others = {
        RELEASE.model_copy(update={part: "sha256:other"}).id
        for part in ("model_digest", "image_digest", "serve_digest", "contract_digest")
    }
    again = VERSION.model_copy(update={"created": VERSION.created + 1})
    others.add(RELEASE.model_copy(update={"model": again}).id)
    assert len({RELEASE.id, *others}) == 6


def test_layers_say_how_an_image_is_made_and_not_what_it_is() -> None:
    layer = Layer(kind="model", digest="sha256:l", key="k", size=1, files=1)
    assert RELEASE.model_copy(update={"layers": (layer,)}).id == RELEASE.id


def test_a_release_goes_there_and_back() -> None:
    assert Release.model_validate_json(RELEASE.model_dump_json()) == RELEASE


def test_a_version_that_is_created_again_is_another_one() -> None:
    again = VERSION.model_copy(update={"created": VERSION.created + 1})
    assert (again.label, again.key == VERSION.key) == (VERSION.label, False)
    assert VERSION.created_at.isoformat() == "2023-11-14T22:13:20+00:00"
