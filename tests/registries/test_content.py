"""The files of a version: their digest, what may be among them, and copying."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageway.errors import ConfigError, RegistryError
from stageway.registries import content
from stageway.registries.content import File, Manifest, copy, hashed, verify, walk

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1)
PATHS = st.lists(NAMES.filter(lambda one: one not in (".", "..")), min_size=1, max_size=3).map("/".join)
FILES = st.builds(File, path=PATHS, size=st.integers(0, 2**60), sha256=st.text("0123456789abcdef", min_size=64))


def folder_with(root: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@given(st.lists(FILES, unique_by=lambda one: one.path, min_size=1))
def test_a_manifest_goes_to_json_and_back(files: list[File]) -> None:
    manifest = Manifest.of(files)
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json())), "here") == manifest


@given(st.lists(FILES, unique_by=lambda one: one.path, min_size=2).flatmap(st.permutations))
def test_the_order_of_files_does_not_change_the_digest(files: list[File]) -> None:
    assert Manifest.of(files).digest == Manifest.of(reversed(files)).digest


def test_the_digest_is_the_documented_one(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"abc")
    line = json.dumps([["m.bin", 3, hashlib.sha256(b"abc").hexdigest()]], separators=(",", ":"))
    assert hashed(walk(tmp_path / "m.bin")).digest == "sha256:" + hashlib.sha256(line.encode()).hexdigest()


def test_name_size_and_bytes_all_count(tmp_path: Path) -> None:
    digests = set()
    for name, data in (("a", b"1"), ("b", b"1"), ("a", b"2"), ("a", b"11")):
        (tmp_path / name).write_bytes(data)
        digests.add(hashed(walk(tmp_path / name)).digest)
    assert len(digests) == 4


def test_a_folder_keeps_its_name_and_all_its_files(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1", sub__b_bin=b"2", sub__deep__c_bin=b"3")
    assert [one.path for one in walk(folder)] == ["outputs/a.bin", "outputs/sub/b.bin", "outputs/sub/deep/c.bin"]


@pytest.mark.parametrize("size", [0, 1, 2**18 - 1, 2**18, 2**18 + 1, 2**20, 5 * 2**20 + 7])
def test_a_copy_has_the_bytes_and_the_digest_of_its_source(tmp_path: Path, size: int) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(size))
    found = copy(walk(source), tmp_path / "into")
    assert (tmp_path / "into" / "model.bin").read_bytes() == source.read_bytes()
    assert found == hashed(walk(source))
    assert found.size == size


def test_a_copy_that_shares_blocks_is_hashed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few file systems can share blocks; here the kernel's own copy stands for it."""

    def share(reading: int, writing: int) -> bool:
        return os.sendfile(writing, reading, 0, 2**30) > 0

    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(2**20))
    monkeypatch.setattr(content, "_share", share)
    assert copy(walk(source), tmp_path / "into") == hashed(walk(source))
    assert (tmp_path / "into" / "model.bin").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("broken", ["_read_piece", "_write_piece"])
@pytest.mark.parametrize("after", [0, 1, 9])
def test_an_error_in_the_middle_of_a_copy_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, after: int
) -> None:
    left, real = after, getattr(content, broken)

    def break_(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments)

    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(5 * 2**20))
    monkeypatch.setattr(content, broken, break_)
    with pytest.raises(OSError, match="Input/output"):
        copy(walk(source), tmp_path / "into")


def test_what_is_hashed_is_the_copy(tmp_path: Path) -> None:
    """A source that grows while it is copied gives a manifest that is true of the copy."""
    source = tmp_path / "model.bin"
    source.write_bytes(b"x" * 100)
    found = copy(walk(source), tmp_path / "into")
    source.write_bytes(b"y" * 200)
    verify(hashed(walk(tmp_path / "into" / "model.bin")), found, "model")


def test_a_link_inside_the_folder_is_stored_as_the_file_it_names(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    (folder / "b.bin").symlink_to("a.bin")
    copy(walk(folder), tmp_path / "into")
    copied = tmp_path / "into" / "outputs" / "b.bin"
    assert copied.read_bytes() == b"1"
    assert not copied.is_symlink()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    secret = folder_with(tmp_path / "elsewhere", secret_txt=b"s")
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    (folder / "b.bin").symlink_to(secret / "secret.txt")
    with pytest.raises(ConfigError, match=r"b\.bin: the link leaves .*outputs; replace it by a copy"):
        walk(folder)


def test_links_to_folders_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    (folder / "again").symlink_to(folder)
    with pytest.raises(ConfigError, match="which is not a file"):
        walk(folder)


def test_dangling_links_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    (folder / "b.bin").symlink_to("gone.bin")
    with pytest.raises(ConfigError, match="which is not a file"):
        walk(folder)


def test_only_plain_files_are_taken(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ConfigError, match="pipe: is not a plain file; leave it out"):
        walk(folder)
    with pytest.raises(ConfigError, match="is neither a file nor a folder"):
        walk(folder / "pipe")


def test_a_file_that_becomes_a_link_after_it_was_listed_is_not_followed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    sources = walk(folder)
    (folder / "a.bin").unlink()
    (folder / "a.bin").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic link"):
        copy(sources, tmp_path / "into")


@pytest.mark.parametrize("path", ["gone.bin", "no\0thing"])
def test_what_is_missing_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"gone\.bin: no such file or folder|cannot be read|no such file"):
        walk(tmp_path / path)


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "empty").mkdir(parents=True)
    with pytest.raises(ConfigError, match="the folder holds no files"):
        walk(tmp_path / "outputs")


def test_names_with_control_characters_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    (folder / "new\nline").write_bytes(b"")
    with pytest.raises(ConfigError, match="has control characters in its name"):
        walk(folder)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "outputs", a_bin=b"1")
    (folder / os.fsdecode(b"\xff.bin")).write_bytes(b"")
    with pytest.raises(ConfigError, match="has control characters in its name"):
        walk(folder)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", ".", "", "a\0b", "a/./b"])
def test_a_manifest_whose_paths_leave_their_folder_is_not_used(path: str) -> None:
    manifest = Manifest.of([File(path=path, size=1, sha256="0" * 64)])
    with pytest.raises(RegistryError, match="does not stay in its folder"):
        Manifest.from_json(manifest.to_json(), "model diabetes:1")


def test_a_manifest_that_was_changed_is_not_used() -> None:
    value = Manifest.of([File(path="a", size=1, sha256="0" * 64)]).to_json()
    value["files"][0]["size"] = 2
    with pytest.raises(RegistryError, match="its files are not those of sha256:"):
        Manifest.from_json(value, "model diabetes:1")


@pytest.mark.parametrize("value", [{}, {"format": 1}, {"format": 1, "files": [{}], "digest": ""}, {"format": "x"}])
def test_a_damaged_manifest_is_not_used(value: dict[str, object]) -> None:
    with pytest.raises(RegistryError, match="is damaged"):
        Manifest.from_json(value, "model diabetes:1")


def test_a_manifest_from_the_future_is_not_used() -> None:
    with pytest.raises(RegistryError, match="from a newer Stageway; upgrade"):
        Manifest.from_json({"format": 2}, "model diabetes:1")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "file 'a' is missing"),
        ([File(path="a", size=2, sha256="0" * 64)], "file 'a' has 2 bytes, 1 were registered"),
        ([File(path="a", size=1, sha256="1" * 64)], "file 'a' was changed after it was registered"),
    ],
)
def test_verify_names_the_file_that_differs(found: list[File], says: str) -> None:
    expected = Manifest.of([File(path="a", size=1, sha256="0" * 64)])
    with pytest.raises(RegistryError, match=says):
        verify(Manifest.of(found), expected, "model diabetes:1")


def test_a_socket_is_no_model(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        path = tmp_path / "s"
        listening.bind(str(path))
        with pytest.raises(ConfigError, match="is neither a file nor a folder"):
            walk(path)
