"""Samples are read with their expected replies, and a broken file is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stageway.errors import ConfigError
from stageway.samples import Sample, contract, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "two.json").write_text('{"data": [1, 2]}')
    (tmp_path / "two.expected.json").write_text("[3.0]")
    (tmp_path / "one.json").write_text('{"data": [1]}')
    (tmp_path / "notes.txt").write_text("not a sample")
    return tmp_path


def test_samples_are_read_by_name_with_their_replies(folder: Path) -> None:
    one, two = read(folder)
    assert (one.name, one.has_expected, two.name, two.has_expected, two.expected) == ("one", False, "two", True, [3.0])
    assert two.request == b'{"data": [1, 2]}'
    assert two.request_json == {"data": [1, 2]}


def test_an_expected_null_is_a_reply(folder: Path) -> None:
    (folder / "one.expected.json").write_text("null")
    assert read(folder)[0].has_expected


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert read(tmp_path) == ()


@pytest.mark.parametrize("name", ["two.json", "two.expected.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1,]"])
def test_a_file_that_is_not_json_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(folder)
    assert caught.value.message.startswith(f"{folder / name}: is not JSON: ")


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "three.json").mkdir()
    with pytest.raises(ConfigError, match=r"three\.json: cannot be read"):
        read(folder)


def test_a_missing_folder_is_named_with_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such samples folder; put NAME\.json and NAME\.expected\.json there"):
        read(tmp_path / "samples")


rows = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3), min_size=1, max_size=3)
requests = st.fixed_dictionaries({"data": rows}, optional={"unit": st.text(max_size=3)})
replies: st.SearchStrategy[Any] = st.lists(st.floats(-1e6, 1e6) | st.text(max_size=3), max_size=3)


@given(st.lists(st.tuples(requests, replies), min_size=1, max_size=4))
def test_every_sample_keeps_the_contract_that_all_imply(pairs: list[tuple[Any, Any]]) -> None:
    found = [Sample(str(at), json.dumps(one).encode(), reply, True) for at, (one, reply) in enumerate(pairs)]
    implied = contract(found)
    assert implied is not None
    assert implied.source == "samples"
    assert implied.request is not None
    assert implied.response is not None
    for request, reply in pairs:
        assert Draft202012Validator(implied.request).is_valid(request)
        assert Draft202012Validator(implied.response).is_valid(reply)


def test_without_a_reply_samples_imply_no_contract() -> None:
    assert contract([Sample("one", b"{}")]) is None
    assert contract([]) is None
