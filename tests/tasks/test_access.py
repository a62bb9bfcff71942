"""Keys of a stage: where the server's file is, and where a smoke test finds a key."""

from __future__ import annotations

from typing import Any

import pytest

from stageway.errors import ConfigError
from stageway.tasks import access, placing

WITH_KEYS = """
model: diabetes
serve: {{entry-script: score.py, samples: samples}}
stages:
  dev: {{target: loopback, auth: {{file: keys.json, test-key: {key}}}}}
  prod: {{target: loopback}}
"""


def test_a_stage_without_keys_lets_everybody_in(project: Any) -> None:
    assert access.auth_file(project.workspace, "prod") is None
    assert access.key_headers(project.workspace, "prod", {}) == {}


def test_the_file_of_keys_has_to_be_there_when_the_plan_is_made(project: Any) -> None:
    project.write(WITH_KEYS.format(key="{env: KEY}"))
    sentence = "no such file 'keys.json'; `stageway keys make keys.json` writes one"
    assert placing.refusals(project.workspace, "dev") == [f"stages.dev.auth.file: {sentence}"]
    with pytest.raises(ConfigError, match=r"auth\.file: no such file"):
        placing.check(project.workspace, "dev")
    (project.root / "keys.json").write_text("{}")
    assert placing.refusals(project.workspace, "dev") == []
    assert access.auth_file(project.workspace, "dev") == (project.root / "keys.json").resolve()


@pytest.mark.parametrize("key", ["{env: KEY}", "{file: key.txt}"])
def test_the_smoke_test_brings_the_key_from_where_the_file_says(project: Any, key: str) -> None:
    project.write(WITH_KEYS.format(key=key))
    (project.root / "key.txt").write_text("abc\n")
    assert access.key_headers(project.workspace, "dev", {"KEY": "abc"}) == {"Authorization": "Bearer abc"}


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("{env: KEY}", "stages.dev.auth.test-key.env: the variable 'KEY' is not set; put one of the keys of"),
        ("{file: key.txt}", "stages.dev.auth.test-key.file: 'key.txt' is not there or empty; put one of the keys of"),
    ],
)
def test_a_key_that_is_missing_is_said(project: Any, key: str, sentence: str) -> None:
    project.write(WITH_KEYS.format(key=key))
    with pytest.raises(ConfigError, match=sentence):
        access.key_headers(project.workspace, "dev", {})


@pytest.mark.parametrize("key", ["{}", "{env: A, file: b}"])
def test_a_key_has_one_place(project: Any, key: str) -> None:
    project.write(WITH_KEYS.format(key=key))
    with pytest.raises(ConfigError, match="write one of env: NAME and file: PATH"):
        _ = project.workspace
