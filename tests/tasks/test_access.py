"""Keys of a stage: where the server's file is, and where a smoke test finds a key."""

from __future__ import annotations

from typing import Any

import pytest

from stageway import tokens
from stageway.errors import ConfigError
from stageway.serving import auth
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


def test_the_file_of_keys_has_to_be_there_when_the_plan_is_made(project: Any, monkeypatch: Any) -> None:
    project.write(WITH_KEYS.format(key="{env: KEY}"))
    sentence = "no such file 'keys.json'; `stageway keys make keys.json` writes one"
    assert placing.refusals(project.workspace, "dev") == [f"stages.dev.auth.file: {sentence}"]
    with pytest.raises(ConfigError, match=r"auth\.file: no such file"):
        placing.check(project.workspace, "dev")
    monkeypatch.setenv("KEY", auth.make(project.root / "keys.json")["secondary"])
    assert placing.refusals(project.workspace, "dev") == []
    assert access.auth_file(project.workspace, "dev") == (project.root / "keys.json").resolve()


def test_a_file_of_keys_that_no_service_takes_is_refused_when_the_plan_is_made(project: Any) -> None:
    project.write(WITH_KEYS.format(key="{env: KEY}"))
    (project.root / "keys.json").write_text("{}")
    sentence = "'keys.json' has neither keys nor tokens; `stageway keys make` writes one"
    assert placing.refusals(project.workspace, "dev") == [f"stages.dev.auth.file: {sentence}"]


@pytest.mark.parametrize("where", ["{env: KEY}", "{file: key.txt}"])
def test_the_smoke_test_brings_the_key_from_where_the_file_says(project: Any, where: str) -> None:
    project.write(WITH_KEYS.format(key=where))
    for key in auth.make(project.root / "keys.json").values():
        (project.root / "key.txt").write_text(key + "\n")
        assert access.key_headers(project.workspace, "dev", {"KEY": key}) == {"Authorization": f"Bearer {key}"}


def test_a_token_is_as_good_as_a_key(project: Any) -> None:
    project.write(WITH_KEYS.format(key="{env: KEY}"))
    private, public = tokens.make_pair(project.root / "pair")
    auth.trust(project.root / "keys.json", public.read_text())
    token, _ = tokens.make_token(project.root / "keys.json", private, seconds=60)
    assert access.key_headers(project.workspace, "dev", {"KEY": token}) == {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("{env: KEY}", "stages.dev.auth.test-key.env: the variable 'KEY' {}; put one of the keys of 'keys.json' there"),
        ("{file: key.txt}", "stages.dev.auth.test-key.file: 'key.txt' {}; put one of the keys of 'keys.json' there"),
    ],
)
def test_a_key_that_is_missing_or_wrong_is_said_before_anything_is_placed(
    project: Any, where: str, sentence: str, monkeypatch: Any
) -> None:
    project.write(WITH_KEYS.format(key=where))
    auth.make(project.root / "keys.json")
    missing = "is not set" if "KEY" in where else "cannot be read or is empty"
    assert placing.refusals(project.workspace, "dev") == [sentence.format(missing)]
    monkeypatch.setenv("KEY", "s3cret")
    (project.root / "key.txt").write_text("s3cret")
    assert placing.refusals(project.workspace, "dev") == [sentence.format("holds no valid key or token")]
    with pytest.raises(ConfigError, match="holds no valid key"):
        access.key_headers(project.workspace, "dev")


@pytest.mark.parametrize("key", ["{}", "{env: A, file: b}"])
def test_a_key_has_one_place(project: Any, key: str) -> None:
    project.write(WITH_KEYS.format(key=key))
    with pytest.raises(ConfigError, match="write one of env: NAME and file: PATH"):
        _ = project.workspace
