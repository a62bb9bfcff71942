"""A folder as a listing: there and back, what changes its digest, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stageway.errors import PackagingError
from stageway.images import tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "inner").mkdir(parents=True)
    (made / "inner" / "a.txt").write_text("one")
    (made / "b").write_text("two")
    (made / "to-a").symlink_to("inner/a.txt")
    return made


@pytest.mark.parametrize("name", ["plain", "ünïcode", "with space", "line\nbreak", "sep\u2028arator", 'quo"te', "a\tb"])
def test_a_listing_reads_back_as_it_was_written(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    entries = tree.read(folder)
    assert tree.loads(tree.dumps(entries)) == entries
    assert name in {entry.path for entry in entries}


def test_a_copy_has_the_same_digest(folder: Path, tmp_path: Path) -> None:
    entries = tree.read(folder)
    (tmp_path / "copy").mkdir()
    tree.copy(folder, tmp_path / "copy", entries)
    assert tree.digest(tree.read(tmp_path / "copy")) == tree.digest(entries)


def test_times_and_permissions_do_not_change_the_digest(folder: Path) -> None:
    before = tree.digest(tree.read(folder))
    os.utime(folder / "b", (1, 1))
    (folder / "b").chmod(0o600)
    assert tree.digest(tree.read(folder)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "b").write_text("twO"),
        lambda folder: (folder / "b").rename(folder / "c"),
        lambda folder: (folder / "b").chmod(0o755),
        lambda folder: (folder / "empty").mkdir(),
        lambda folder: ((folder / "to-a").unlink(), (folder / "to-a").symlink_to("b")),
    ],
    ids=["bytes", "name", "executable", "folder", "link"],
)
def test_what_a_service_could_see_changes_the_digest(folder: Path, change: object) -> None:
    before = tree.digest(tree.read(folder))
    assert callable(change)
    change(folder)
    assert tree.digest(tree.read(folder)) != before


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("../outside", "outside of"),
        ("inner/../../outside", "outside of"),
        ("/etc/hostname", "absolute path"),
        ("nowhere", "not there"),
        ("loop", "not there"),
    ],
)
def test_a_link_that_leaves_the_folder_is_refused(folder: Path, target: str, sentence: str) -> None:
    (folder.parent / "outside").write_text("secret")
    (folder / "loop").symlink_to(target)
    with pytest.raises(PackagingError, match=sentence) as caught:
        tree.read(folder)
    assert "loop" in caught.value.message


def test_a_hard_link_is_copied_by_its_bytes(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("shared")
    os.link(outside, folder / "hard")
    (tmp_path / "copy").mkdir()
    tree.copy(folder, tmp_path / "copy", tree.read(folder))
    outside.write_text("changed later")
    assert (tmp_path / "copy" / "hard").read_text() == "shared"


def test_pipes_and_sockets_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(PackagingError, match="pipe: is neither file, folder nor link"):
        tree.read(folder)
    (folder / "pipe").unlink()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")
        with pytest.raises(PackagingError, match="sock: is neither"):
            tree.read(folder)


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    try:
        (folder / os.fsdecode(b"\xff")).write_text("x")
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    with pytest.raises(PackagingError, match="not UTF-8"):
        tree.read(folder)
