"""From a version and a serve config to a bundle: what is made, what is used again, what is refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stageway import images, output
from stageway.bundle import Bundle
from stageway.errors import ConfigError, PackagingError, TryAgainError
from stageway.images import sources
from stageway.images.build import PACKAGES
from stageway.images.layers import LayerStore
from stageway.release import Model

BUILD = """
import sys
from pathlib import Path
from stageway import images
from stageway.config.workspace import Workspace
from stageway_shelf import FolderRegistry

workspace = Workspace.open(Path(sys.argv[1]), {"STAGEWAY_CACHE": sys.argv[2]})
registry = FolderRegistry(workspace)
print(images.build(workspace, registry.get("times"), registry).digest)
"""


def build(times: Any, model: Model | None = None, cache: Path | None = None) -> Bundle:
    shelf = times.shelf
    return images.build(times.workspace(cache), model or shelf.add(), shelf)


def made(notes: list[str]) -> set[str]:
    """Return the layers that the last build made, from what it said."""
    return {part.split()[-4] for part in notes[-1].split(",") if part.endswith(" made")}


@pytest.fixture
def notes() -> Any:
    heard: list[str] = []
    with output.notes_to(heard.append):
        yield heard


def layer(bundle: Bundle, kind: str) -> str:
    return bundle.manifest.layer(kind).digest


def test_a_bundle_has_four_layers_and_is_read_back(times: Any) -> None:
    bundle = build(times)
    assert [one.kind for one in bundle.manifest.layers] == ["dependencies", "serving", "model", "source"]
    assert Bundle.read(bundle.folder) == bundle
    store = LayerStore(times.cache)
    for one in bundle.manifest.layers:
        store.verify(one)


def test_the_layers_hold_what_they_are_named_for_and_no_bytecode(times: Any) -> None:
    bundle = build(times)
    assert (bundle.content("dependencies") / "orjson").is_dir()
    assert (bundle.content("serving") / "stageway" / "serving" / "__main__.py").is_file()
    assert not (bundle.content("serving") / "stageway" / "facts.py").exists()
    assert (bundle.content("model") / "azureml-models" / "times" / "1" / "factor.json").read_text() == "2"
    assert [path.name for path in bundle.content("source").iterdir()] == ["score.py"]
    for one in bundle.manifest.layers:
        assert not list(bundle.content(one.kind).rglob("*.pyc"))


def test_nothing_in_a_dependency_layer_names_this_machines_interpreter(times: Any) -> None:
    content = build(times).content("dependencies")
    records = "".join(path.read_text() for path in content.glob("*.dist-info/RECORD"))
    assert "bin/granian" not in records
    assert not (content / "bin").exists()
    assert not (content / ".lock").exists()


def test_two_caches_give_the_same_image(times: Any, tmp_path: Path) -> None:
    model = times.shelf.add()
    one, other = build(times, model, tmp_path / "one"), build(times, model, tmp_path / "other")
    assert one.folder != other.folder
    assert one.digest == other.digest


def test_a_new_model_makes_a_new_model_layer_alone(times: Any, notes: list[str]) -> None:
    one = build(times)
    other = build(times, times.shelf.add(files={"factor.json": "3"}))
    assert made(notes) == {"model"}
    assert one.digest != other.digest
    assert one.manifest.serve_digest == other.manifest.serve_digest


def test_nothing_new_makes_nothing(times: Any, notes: list[str]) -> None:
    model = times.shelf.add()
    one = build(times, model)
    assert build(times, model) == one
    assert made(notes) == set()


def test_the_same_bytes_under_two_versions_are_fetched_once(times: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, other = build(times, cache=cache), build(times, cache=cache)
    assert times.shelf.fetched() == 1
    assert layer(one, "model") != layer(other, "model")
    assert other.manifest.models[0].label == "times:2"


def test_a_changed_entry_script_makes_a_new_source_layer_and_serve_digest(times: Any, notes: list[str]) -> None:
    model = times.shelf.add()
    one = build(times, model)
    times.write("score.py", "def run(data): return 7\n")
    other = build(times, model)
    assert made(notes) == {"source"}
    assert one.manifest.serve_digest != other.manifest.serve_digest
    assert layer(one, "dependencies") == layer(other, "dependencies")


def test_a_file_that_is_saved_while_it_is_packaged_is_not_kept_under_its_former_name(
    times: Any, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    model = times.shelf.add()
    times.write("score.py", "def run(data): return 1\n")
    listing = sources.Sources.listing

    def saved(own: sources.Sources) -> list[list[object]]:
        found = listing(own)
        times.write("score.py", "def run(data): return 2\n")
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(sources.Sources, "listing", saved)
        with pytest.raises(TryAgainError, match=r"score\.py: changed while it was packaged"):
            build(times, model)
    times.write("score.py", "def run(data): return 1\n")
    bundle = build(times, model)
    assert "source" in made(notes)
    source = LayerStore(times.cache).content(bundle.manifest.layer("source"))
    assert (source / "score.py").read_text() == "def run(data): return 1\n"


def test_a_lone_entry_script_that_is_a_link_is_packaged_by_its_bytes(times: Any) -> None:
    (times.root / "score.py").rename(times.root / "other.py")
    (times.root / "score.py").symlink_to("other.py")
    bundle = build(times)
    copied = LayerStore(times.cache).content(bundle.manifest.layer("source")) / "score.py"
    assert not copied.is_symlink()
    assert copied.read_bytes() == (times.root / "other.py").read_bytes()


@pytest.mark.parametrize(
    "keys",
    [
        {"environment_variables": {"LEVEL": "2"}},
        {"source_directory": "."},
        {"dependencies": "requirements.txt"},
    ],
    ids=["environment", "sources", "dependencies"],
)
def test_the_serve_digest_is_of_the_whole_serve_config(times: Any, keys: dict[str, Any]) -> None:
    times.write("requirements.txt", "six==1.17.0\n")
    times.serve(entry_script="score.py")
    model = times.shelf.add()
    one = build(times, model)
    times.serve(entry_script="score.py", **keys)
    other = build(times, model)
    assert one.manifest.serve_digest != other.manifest.serve_digest
    assert one.digest != other.digest


def test_a_deployments_settings_are_no_part_of_the_image(times: Any) -> None:
    model = times.shelf.add()
    one = build(times, model)
    text = (times.root / "stageway.yml").read_text()
    times.write("stageway.yml", text.replace("dev: {}", "dev: {workers: 2, resources: {cpu: 1, memory: 1GiB}}"))
    assert build(times, model).digest == one.digest


def test_samples_with_replies_are_the_declared_contract(times: Any) -> None:
    times.sample("one", {"data": [1, 2]}, [2, 4])
    times.serve(entry_script="score.py", samples="samples")
    contract = build(times).manifest.contract
    assert contract is not None
    assert contract["source"] == "samples"
    assert contract["response"] == {"type": "array", "items": {"type": "number"}}


def test_a_signature_is_the_declared_contract(times: Any) -> None:
    signature = {"request": {"type": "object"}, "response": {"type": "array"}, "source": "signature"}
    assert build(times, times.shelf.add(signature=signature)).manifest.contract == signature


def test_several_models_are_one_service(times: Any) -> None:
    times.write("stageway.yml", "models: [times, plus]\nserve: {entry-script: score.py}\nstages: {dev: {}}\n")
    times.shelf.add("plus", {"plus.json": "1"})
    newest = times.shelf.add("plus", {"plus.json": "2"})
    bundle = build(times)
    assert bundle.label == f"times:1+{newest.label}"
    assert bundle.manifest.model_dir == "azureml-models"


def test_without_entry_script_and_framework_nothing_can_serve(times: Any) -> None:
    times.serve()
    with pytest.raises(ConfigError, match=r"serve.entry-script: missing, and times:1 was registered"):
        build(times)


def test_a_framework_that_needs_a_script_is_named(times: Any) -> None:
    times.serve()
    with pytest.raises(ConfigError, match="framework 'Custom' of times:1 is not served without one; known"):
        build(times, times.shelf.add(framework="Custom"))


def test_a_framework_whose_package_is_not_locked_is_refused_with_the_line_to_write(times: Any) -> None:
    times.serve()
    model = times.shelf.add(framework="ScikitLearn", framework_version="1.7.2")
    with pytest.raises(PackagingError, match=r"has no scikit-learn.*write scikit-learn==1.7.2 into"):
        build(times, model)


def test_a_file_of_skops_whose_package_is_not_locked_is_refused(times: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times.serve()
    monkeypatch.setitem(PACKAGES, "ScikitLearn", ("six",))
    times.write("requirements.txt", "six==1.17.0\n")
    times.serve(dependencies="requirements.txt")
    model = times.shelf.add(files={"model.skops": ""}, framework="ScikitLearn")
    with pytest.raises(PackagingError, match=r"has no skops, .*write skops into requirements.txt"):
        build(times, model)


def test_a_variable_of_ours_cannot_be_set(times: Any) -> None:
    times.serve(entry_script="score.py", environment_variables={"PYTHONPATH": "/somewhere"})
    with pytest.raises(ConfigError, match=r"serve.environment-variables.PYTHONPATH: is set by Stageway"):
        build(times)


def test_another_python_than_this_one_is_refused(times: Any) -> None:
    times.serve(entry_script="score.py", python="3.99")
    with pytest.raises(PackagingError, match=r"serve.python: '3.99' is asked for and this Stageway runs on"):
        build(times)


def test_a_lock_that_was_tampered_with_is_refused(times: Any, tmp_path: Path) -> None:
    times.write("requirements.txt", "six==1.17.0\n")
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    build(times)
    lock = times.root / "stageway.lock"
    lock.write_text(lock.read_text().replace("--hash=sha256:", "--hash=sha256:0000").replace(64 * "0", ""))
    lock.write_text(re.sub(r"sha256:0000(.{60}).{4}", r"sha256:0000\1", lock.read_text()))
    with pytest.raises(PackagingError, match=r"stageway.lock: cannot be installed"):
        build(times, times.shelf.get("times"), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "scratch").iterdir())


def test_ci_needs_a_current_lock(times: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ConfigError, match="stageway lock"):
        build(times)


def test_a_secret_in_the_sources_stops_the_build(times: Any) -> None:
    times.write(".env", "TOKEN=1")
    times.serve(entry_script="score.py", source_directory=".")
    with pytest.raises(PackagingError, match="looks like a secret"):
        build(times)


@pytest.mark.parametrize("signal_at", ["dependencies", "model"])
def test_kill_9_while_a_layer_is_made_then_the_same_build_again(times: Any, tmp_path: Path, signal_at: str) -> None:
    model, cache = times.shelf.add(), tmp_path / "cache"
    expected = build(times, model).digest
    content = {"dependencies": "*/content/*", "model": "*/content/azureml-models"}[signal_at]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "shelf")}
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(times.root), str(cache)], env=env, text=True)
    end = time.monotonic() + 60
    while process.poll() is None and not list((cache / "scratch").glob(content)) and time.monotonic() < end:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = build(times, model, cache)
    assert again.digest == expected
    for one in again.manifest.layers:
        LayerStore(cache).verify(one)
    end = time.monotonic() + 60
    while list((cache / "scratch").iterdir()) and time.monotonic() < end:
        build(times, times.shelf.add(files={"factor.json": str(end)}), cache)  # uv may outlive its killed caller
    assert list((cache / "scratch").iterdir()) == []


def test_a_disk_that_packages_do_not_fit_on_is_said(times: Any, small_disk: Path) -> None:
    model, cache = times.shelf.add(), small_disk / "cache"
    images.environment(times.workspace())
    with pytest.raises(PackagingError, match=r"no space left on the disk; free some, or set STAGEWAY_CACHE"):
        build(times, model, cache)
    assert list((cache / "scratch").iterdir()) == []
    assert not (cache / "layers").exists()
    assert not (cache / "bundles").exists()


def test_two_builds_at_once_agree(times: Any, tmp_path: Path) -> None:
    times.shelf.add()
    images.environment(times.workspace())
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "shelf")}
    command = [sys.executable, "-c", BUILD, str(times.root), str(tmp_path / "cache")]
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] != ""


def test_a_command_in_the_environment_finds_the_locked_packages_alone(times: Any) -> None:
    times.write("requirements.txt", "six==1.17.0\n")
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    place = images.environment(times.workspace())
    code = "import six; print(six.__version__, six.__file__)"
    env = {**os.environ, "PYTHONPATH": str(times.root), **place.env}
    times.write("six.py", "__version__ = 'of the caller'")
    done = subprocess.run([*place.argv, "-c", code], env=env, capture_output=True, text=True, check=True)
    version, file = done.stdout.split()
    assert version == "1.17.0"
    assert str(times.cache) in file
    for name in ("pydantic", "stageway"):
        done = subprocess.run(["python", "-c", f"import {name}"], env=env, capture_output=True, text=True, check=False)
        assert f"No module named '{name}'" in done.stderr
