"""A bundle on disk: read again, laid out as an app root, and the command line of its server."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stageway import images
from stageway.bundle import Bundle, Manifest, ModelPlace, machine
from stageway.errors import ConfigError, PackagingError
from stageway.release import Layer


@pytest.fixture
def bundle(times: Any) -> Bundle:
    times.write("src/score.py", "def run(data): return 1\n")
    times.write("src/tool.sh", "#!/bin/sh\n").chmod(0o755)
    (times.root / "src" / "alias").symlink_to("score.py")
    times.serve(source_directory="src", entry_script="score.py", environment_variables={"LEVEL": "3"})
    shelf = times.shelf
    return images.build(times.workspace(), shelf.add(), shelf)


def manifest(**changes: Any) -> Manifest:
    layer = Layer(kind="model", digest="sha256:aa", key="sha256:bb", size=1, files=1)
    facts = {
        "layers": (layer,),
        "models": (ModelPlace(name="times", version="1"),),
        "python": "3.11",
        "platform": "linux-x86_64",
        "entry_script": "score.py",
        "serve_digest": "sha256:cc",
    }
    return Manifest.model_validate({**facts, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"python": "3.12"},
        {"platform": "linux-aarch64"},
        {"entry_script": "other.py"},
        {"entry_script": None, "framework": "ScikitLearn"},
        {"environment_variables": {"A": "1"}},
        {"models": (ModelPlace(name="times", version="2"),)},
        {"contract": {"request": None, "response": {"type": "array"}, "source": "samples"}},
        {"layers": (Layer(kind="model", digest="sha256:other", key="sha256:bb", size=1, files=1),)},
    ],
)
def test_the_image_digest_is_of_all_that_a_service_can_see(changes: dict[str, Any]) -> None:
    assert manifest(**changes).digest != manifest().digest


def test_keys_and_sizes_are_no_part_of_the_image_digest() -> None:
    same = Layer(kind="model", digest="sha256:aa", key="sha256:made elsewhere", size=2, files=2)
    assert manifest(layers=(same,)).digest == manifest().digest


def test_a_bundle_is_written_once_and_read_back(tmp_path: Path) -> None:
    one, other = Bundle.write(tmp_path, manifest()), Bundle.write(tmp_path, manifest())
    assert one == other
    (tmp_path / "layers" / "aa" / "content").mkdir(parents=True)
    assert Bundle.read(one.folder) == one


def test_a_bundle_that_is_gone_says_how_to_make_it_again(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"no such bundle; run `stageway package` again"):
        Bundle.read(tmp_path / "bundles" / "aa")


def test_a_damaged_bundle_is_said(tmp_path: Path) -> None:
    folder = Bundle.write(tmp_path, manifest()).folder
    for text in ("", "[]", '{"format": 1}', "\0"):
        (folder / "bundle.json").write_text(text)
        with pytest.raises(PackagingError, match="is damaged; run `stageway package` again"):
            Bundle.read(folder)


def test_a_bundle_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = Bundle.write(tmp_path, manifest()).folder
    (folder / "bundle.json").write_text(json.dumps({"format": 99, "what": "ever"}))
    with pytest.raises(ConfigError, match="is from a newer Stageway"):
        Bundle.read(folder)


def test_a_layer_that_is_gone_is_named(bundle: Bundle, tmp_path: Path) -> None:
    elsewhere = Bundle.write(tmp_path, bundle.manifest)
    with pytest.raises(PackagingError, match=r"the dependencies layer is gone; run `stageway package` again"):
        Bundle.read(elsewhere.folder)


def test_the_app_root_has_sources_as_copies_and_models_as_links(bundle: Bundle, tmp_path: Path) -> None:
    app = bundle.unpack(tmp_path / "run" / "app")
    model = app / "azureml-models" / "times" / "1"
    assert model.is_symlink()
    assert (model / "factor.json").read_text() == "2"
    assert (app / "src" / "score.py").read_text() == "def run(data): return 1\n"
    assert (app / "src" / "alias").readlink() == Path("score.py")
    assert os.access(app / "src" / "tool.sh", os.X_OK)
    assert (app / "src" / "score.py").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["app"]


def test_what_a_service_writes_does_not_reach_the_layers(bundle: Bundle, tmp_path: Path) -> None:
    app = bundle.unpack(tmp_path / "app")
    (app / "src" / "score.py").write_text("changed")
    assert (bundle.content("source") / "src" / "score.py").read_text() == "def run(data): return 1\n"


def test_unpacking_again_leaves_what_is_there(bundle: Bundle, tmp_path: Path) -> None:
    app = bundle.unpack(tmp_path / "app")
    (app / "written-by-the-service").touch()
    assert bundle.unpack(tmp_path / "app") == app
    assert (app / "written-by-the-service").exists()


def test_an_app_root_of_something_else_is_not_taken_over(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "mine").touch()
    with pytest.raises(PackagingError, match=r"is not an app root of times:1; name a new folder"):
        bundle.unpack(tmp_path / "app")
    assert (tmp_path / "app" / "mine").exists()


def test_several_that_unpack_at_once_get_one_app_root(bundle: Bundle, tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def unpack() -> None:
        try:
            bundle.unpack(tmp_path / "app")
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failed.append(error)

    threads = [threading.Thread(target=unpack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [path.name for path in tmp_path.iterdir() if "app" in path.name] == ["app"]


def test_the_server_is_started_by_the_base_interpreter_without_its_packages(bundle: Bundle, tmp_path: Path) -> None:
    launch = bundle.launch(tmp_path / "app", uds=tmp_path / "s", control=tmp_path / "c", workers=2, release="r-1")
    assert launch.argv == (
        *(machine.interpreter(), "-S", "-s", "-P", "-m", "stageway.serving", "--uds", str(tmp_path / "s")),
        *("--workers", "2", "--control", str(tmp_path / "c"), "--entry-script", "src/score.py"),
        *("--release", "r-1", "--model-version", "times:1"),
    )
    assert launch.cwd == tmp_path / "app"
    assert Path(launch.argv[0]) != Path(sys.executable)


def test_a_port_is_an_alternative_to_the_socket(bundle: Bundle, tmp_path: Path) -> None:
    argv = bundle.launch(tmp_path / "app", host="127.0.0.1", port=5001, release="r-1").argv
    assert "--uds" not in argv
    assert argv[argv.index("--port") + 1] == "5001"


def test_a_service_gets_what_the_bundle_says_and_nothing_of_its_caller(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "LD_PRELOAD"):
        monkeypatch.setenv(name, "of-the-caller")
    env = bundle.launch(tmp_path / "app", uds=tmp_path / "s", release="r-1", env={"STAGE": "dev"}).env
    assert "of-the-caller" not in env.values()
    assert set(env) <= {"PATH", "HOME", "LANG", "TMPDIR"} | {
        *("PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED", "STAGEWAY_SITE", "AML_APP_ROOT"),
        *("AZUREML_MODEL_DIR", "AZUREML_SOURCE_DIRECTORY", "LEVEL", "STAGE"),
    }
    assert env["AZUREML_MODEL_DIR"] == "azureml-models/times/1"
    assert (env["LEVEL"], env["STAGE"]) == ("3", "dev")
    assert env["PYTHONPATH"] == str(bundle.content("serving"))
    assert not Path(env["PYTHONPYCACHEPREFIX"]).is_relative_to(bundle.cache / "layers")


def test_a_deployment_cannot_set_what_the_bundle_sets(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"environment-variables.AZUREML_MODEL_DIR: is set by Stageway"):
        bundle.launch(tmp_path / "app", uds=tmp_path / "s", release="r-1", env={"AZUREML_MODEL_DIR": "/"})


@pytest.mark.parametrize("changes", [{"python": "3.9"}, {"platform": "plan9-mips"}])
def test_a_bundle_of_another_machine_is_not_started(tmp_path: Path, changes: dict[str, Any]) -> None:
    here = {"python": machine.python_version(), "platform": machine.platform_name()}
    with pytest.raises(PackagingError, match=r"was made for Python .* on .*, and this is Python"):
        Bundle(tmp_path, manifest(**{**here, **changes})).python_command()


def test_the_interpreter_finds_the_packages_of_the_bundle_alone(bundle: Bundle) -> None:
    argv, env = bundle.python_command()
    assert shutil.which(argv[0]) is not None
    assert env["STAGEWAY_SITE"] == str(bundle.content("dependencies"))


def test_how_requests_are_joined_is_told_to_the_server(times: Any, tmp_path: Path) -> None:
    times.serve(entry_script="score.py", batching="on", batch_rows=8)
    made = images.build(times.workspace(), times.shelf.add(), times.shelf)
    argv = made.launch(tmp_path / "app", uds=tmp_path / "s", release="r-1").argv
    assert argv[argv.index("--batching") + 1] == "on"
    assert argv[argv.index("--batch-rows") + 1] == "8"


def test_keys_that_are_newer_than_a_release_do_not_change_its_digest() -> None:
    assert manifest(batching="auto", batch_rows=256).digest == manifest().digest
    assert manifest(batching="off").digest != manifest().digest != manifest(batch_rows=8).digest
