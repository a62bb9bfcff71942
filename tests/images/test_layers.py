"""The layer store: made once, whole or not at all, verified by reading again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stageway.errors import ConfigError, PackagingError
from stageway.images import cache as caches
from stageway.images.layers import LayerStore

SLOW_FILL = """
import sys, time
from pathlib import Path
from stageway.images.layers import LayerStore

def fill(content):
    (content / "first").write_text("one")
    print("half", flush=True)
    {then}
    (content / "second").write_text("two")

layer = LayerStore(Path(sys.argv[1])).make("model", ["a"], fill)
print(layer.digest, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    return LayerStore(tmp_path / "cache")


def whole(content: Path) -> None:
    (content / "first").write_text("one")
    (content / "second").write_text("two")


def start(store: LayerStore, then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_FILL.format(then=then), str(store.cache)], stdout=subprocess.PIPE, text=True
    )


def layers(store: LayerStore) -> list[str]:
    return sorted(path.name for path in (store.cache / "layers").glob("*"))


def test_a_layer_is_made_once(store: LayerStore) -> None:
    layer = store.make("model", ["a", 1], whole)

    def not_again(content: Path) -> None:
        raise AssertionError("made a second time")

    assert store.make("model", ["a", 1], not_again) == layer
    assert layer.size == 6
    assert layer.files == 2


def test_other_inputs_with_the_same_bytes_are_the_same_layer(store: LayerStore) -> None:
    one, other = store.make("model", ["a"], whole), store.make("source", ["b"], whole)
    assert one.digest == other.digest
    assert one.key != other.key
    assert layers(store) == [one.digest.removeprefix("sha256:")]


def test_two_caches_agree_on_the_digest(store: LayerStore, tmp_path: Path) -> None:
    other = LayerStore(tmp_path / "other")
    assert store.make("model", ["a"], whole).digest == other.make("model", ["a"], whole).digest


def test_a_layer_that_was_removed_is_made_again(store: LayerStore) -> None:
    layer = store.make("model", ["a"], whole)
    subprocess.run(["rm", "-r", str(store.folder(layer.digest))], check=True)
    assert store.find("model", ["a"]) is None
    assert store.make("model", ["a"], whole) == layer
    store.verify(layer)


def test_a_layer_that_was_half_removed_is_made_again(store: LayerStore) -> None:
    layer = store.make("model", ["a"], whole)
    (store.folder(layer.digest) / "layer.json").unlink()
    (store.content(layer) / "first").unlink()
    assert store.find("model", ["a"]) is None
    assert store.make("model", ["a"], whole) == layer
    store.verify(layer)
    assert list((store.cache / "scratch").iterdir()) == []


def test_files_are_read_only_and_of_one_time(store: LayerStore) -> None:
    layer = store.make("model", ["a"], whole)
    state = (store.content(layer) / "first").stat()
    assert state.st_mode & 0o777 == 0o444
    assert state.st_mtime == 315532800


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda content: (content / "second").unlink(), "second"),
        (lambda content: ((content / "first").chmod(0o644), (content / "first").write_text("0ne")), "first"),
        (lambda content: (content / "third").write_text("new"), "third"),
    ],
    ids=["removed", "changed", "added"],
)
def test_verify_names_what_was_changed(store: LayerStore, harm: object, named: str) -> None:
    layer = store.make("model", ["a"], whole)
    store.verify(layer)
    assert callable(harm)
    harm(store.content(layer))
    with pytest.raises(PackagingError, match=rf"was changed \({named}\); remove .* and run `stageway package` again"):
        store.verify(layer)


def test_a_failing_build_leaves_nothing(store: LayerStore) -> None:
    def fails(content: Path) -> None:
        whole(content)
        raise PackagingError("no")

    with pytest.raises(PackagingError, match="no"):
        store.make("model", ["a"], fails)
    assert layers(store) == []
    assert list((store.cache / "scratch").iterdir()) == []


def test_kill_9_in_the_middle_leaves_nothing_and_the_next_build_is_whole(store: LayerStore) -> None:
    with start(store, "time.sleep(600)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert layers(store) == []
    assert list((store.cache / "scratch").iterdir()) != []
    layer = store.make("model", ["a"], whole)
    store.verify(layer)
    assert list((store.cache / "scratch").iterdir()) == []


def test_of_two_processes_one_makes_the_layer_and_the_other_waits(store: LayerStore, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with start(store, f"while not Path({str(go)!r}).exists(): time.sleep(0.01)") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "half\n"
        with start(store, "sys.exit('made twice')") as second:
            go.touch()
            assert second.stdout is not None
            made, waited = first.stdout.read().strip(), second.stdout.read().strip()
    assert (first.returncode, second.returncode) == (0, 0)
    assert made == waited
    assert layers(store) == [made.removeprefix("sha256:")]


def test_of_many_threads_one_makes_the_layer(store: LayerStore) -> None:
    made: list[int] = []

    def fill(content: Path) -> None:
        made.append(1)
        whole(content)

    threads = [threading.Thread(target=store.make, args=("model", ["a"], fill)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_a_scratch_folder_in_use_is_not_swept(tmp_path: Path) -> None:
    with caches.scratch(tmp_path) as one:
        (one / "file").write_text("mine")
        with caches.scratch(tmp_path) as other:
            assert other != one
        assert (one / "file").read_text() == "mine"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_full_disk_leaves_nothing_half_done(small_disk: Path) -> None:
    store = LayerStore(small_disk / "cache")
    store.make("model", ["small"], whole)

    def too_much(content: Path) -> None:
        (content / "big").write_bytes(bytes(2**20))

    with pytest.raises(PackagingError, match="no space left on the disk; free some, or set STAGEWAY_CACHE"):
        store.make("model", ["big"], too_much)
    assert len(layers(store)) == 1
    assert list((store.cache / "scratch").iterdir()) == []
    assert store.find("model", ["big"]) is None


def test_a_read_only_cache_is_said(small_disk: Path) -> None:
    store = LayerStore(small_disk / "cache")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ConfigError, match=r"read-only file system; the cache .* or set STAGEWAY_CACHE"):
        store.make("model", ["a"], whole)


def test_a_cache_that_is_made_is_its_users_alone(store: LayerStore) -> None:
    store.make("model", ["a"], whole)
    assert store.cache.stat().st_mode & 0o777 == 0o700


def test_the_listing_beside_a_layer_names_it(store: LayerStore) -> None:
    layer = store.make("model", ["a"], whole)
    folder = store.folder(layer.digest)
    text = subprocess.run(["sha256sum", str(folder / "listing")], capture_output=True, text=True, check=True).stdout
    assert text.split()[0] == folder.name
    assert json.loads((folder / "layer.json").read_text())["digest"] == layer.digest
