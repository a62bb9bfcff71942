"""``stageway keys``: what the commands write is what a service takes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stageway.serving.auth import EXPIRED, Guard


def keys(*arguments: str, cwd: Path, given: str = "", code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stageway", "keys", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    if code:
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stdout == ""
    return done.stderr if code else done.stdout


def says(guard: Guard, credential: str) -> str:
    reply = guard({"authorization": f"Bearer {credential}"})
    return "" if reply is None else str(json.loads(reply.body)["message"])


def test_keys_are_printed_once_and_rotate(tmp_path: Path) -> None:
    primary, secondary = (line.split()[1] for line in keys("make", "auth.json", cwd=tmp_path).splitlines())
    guard = Guard(str(tmp_path / "auth.json"))
    assert (says(guard, primary), says(guard, secondary)) == ("", "")
    made: Any = json.loads(keys("rotate", "auth.json", "--key", "secondary", "--json", cwd=tmp_path))
    assert (says(guard, primary), says(guard, made["secondary"])) == ("", "")
    assert says(guard, secondary) != ""
    own = "a-key-of-one's-own-making"
    printed = keys("rotate", "auth.json", "--key", "primary", "--key-from-file", "-", cwd=tmp_path, given=own + "\n")
    assert own not in printed
    assert says(guard, own) == ""
    (tmp_path / "own").write_text(own)
    keys("rotate", "auth.json", "--key", "secondary", "--key-from-file", "own", cwd=tmp_path)
    # A guard looks once a second, and before it refuses.
    assert says(guard, "look") != ""
    assert says(guard, made["secondary"]) != ""


def test_a_token_is_taken_until_it_ends(tmp_path: Path) -> None:
    places = json.loads(keys("pair", "ci", "--json", cwd=tmp_path))
    assert stat.S_IMODE((tmp_path / places["private"]).stat().st_mode) == 0o600
    keys("trust", "auth.json", "ci/public.pem", "--issuer", "ci", "--audience", "diabetes", cwd=tmp_path)
    guard = Guard(str(tmp_path / "auth.json"))
    words = ("token", "auth.json", "--private-key", "ci/private.pem", "--subject", "nightly")
    assert says(guard, keys(*words, "--expires", "1h", cwd=tmp_path).strip()) == ""
    made: Any = json.loads(keys(*words, "--expires", "1s", "--json", cwd=tmp_path))
    assert made["token"].count(".") == 2
    assert says(guard, made["token"]) in ("", EXPIRED)
    assert "PRIVATE" not in (tmp_path / "auth.json").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("make", "auth.json"), "error: auth.json: has keys; `stageway keys rotate` makes a new one"),
        (("make", "nowhere/auth.json"), "error: nowhere/auth.json: No such file or directory"),
        (("rotate", "nowhere.json", "--key", "primary"), "error: nowhere.json: No such file or directory"),
        (("rotate", "broken.json", "--key", "primary"), "error: broken.json: is not JSON"),
        (("rotate", "auth.json", "--key", "primary", "--key-from-file", "-"), "error: --key-from-file -: is empty"),
        (("trust", "auth.json", "nowhere.pem"), "error: nowhere.pem: No such file or directory"),
        (("trust", "auth.json", "ci/private.pem"), "error: tokens.public-keys[0]: is secret; only public keys"),
        (("token", "auth.json", "--private-key", "ci/private.pem"), "error: auth.json: takes no tokens"),
        (("token", "taking.json", "--private-key", "ci/public.pem"), "error: --private-key ci/public.pem: is not"),
        (
            ("token", "taking.json", "--private-key", "b/private.pem"),
            "error: --private-key b/private.pem: taking",
        ),
        (("token", "taking.json", "--private-key", "ci/private.pem", "--expires", "soon"), "error: --expires 'soon'"),
        (("pair", "ci"), "error: ci/private.pem: is there already; name another folder"),
    ],
)
def test_what_is_wrong_is_one_line(project: Path, words: tuple[str, ...], sentence: str) -> None:
    assert keys(*words, cwd=project, code=2).startswith(sentence)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "broken.json").write_text("{")
    keys("make", "auth.json", cwd=folder)
    keys("pair", "ci", cwd=folder)
    keys("pair", "b", cwd=folder)
    keys("trust", "taking.json", "ci/public.pem", cwd=folder)
    return folder
