"""``stageway.lock``: resolved together with serving's packages, told stale without a network."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stageway import output, serving
from stageway.errors import ConfigError, PackagingError
from stageway.images import lock as locks
from stageway.images.build import dependencies
from stageway.images.layers import LayerStore

ON_A_LAPTOP: dict[str, str] = {}
IN_CI = {"CI": "true"}


@pytest.fixture
def locked(times: Any) -> Any:
    """A project with one package of its own, and its lock."""
    times.write("requirements.txt", "six==1.17.0\n")
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    locks.resolve(times.workspace())
    return times


def test_a_lock_holds_the_users_packages_and_servings_with_hashes(locked: Any) -> None:
    lock = locks.read(locked.root / "stageway.lock")
    assert lock is not None
    assert {"six", "granian", "orjson"} <= lock.names
    assert lock.text.count("--hash=sha256:") > 10
    assert lock.inputs == locks.inputs(locked.workspace())


def test_a_lock_names_no_package_index(locked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (locked.root / "stageway.lock").unlink()
    (locked.root / "more").mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", (locked.root / "more").as_uri())
    text = locks.resolve(locked.workspace()).read_text()
    assert "://" not in text
    assert "index" not in text
    assert str(locked.root) not in text


def test_without_dependencies_a_lock_holds_what_serving_needs(times: Any) -> None:
    lock = locks.current(times.workspace(), ON_A_LAPTOP)
    assert {"granian", "orjson"} <= lock.names
    assert lock.inputs == locks.inputs(times.workspace())


def test_a_current_lock_is_left_alone(locked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    before = (locked.root / "stageway.lock").read_text()
    assert locks.current(locked.workspace(), ON_A_LAPTOP).text == before
    assert locks.current(locked.workspace(), IN_CI).text == before


def test_ci_refuses_a_missing_lock(times: Any) -> None:
    with pytest.raises(ConfigError, match=r"stageway.lock: missing; run `stageway lock` and commit the file"):
        locks.current(times.workspace(), IN_CI)
    assert not (times.root / "stageway.lock").exists()


def test_ci_refuses_a_stale_lock(locked: Any) -> None:
    before = (locked.root / "stageway.lock").read_text()
    locked.write("requirements.txt", "six==1.16.0\n")
    with pytest.raises(ConfigError, match=r"stageway.lock: stale, requirements.txt was changed; run `stageway lock`"):
        locks.current(locked.workspace(), IN_CI)
    assert (locked.root / "stageway.lock").read_text() == before


def test_a_stale_lock_is_made_again_on_a_laptop(locked: Any) -> None:
    locked.write("requirements.txt", "six==1.16.0\n")
    assert "six==1.16.0" in locks.current(locked.workspace(), ON_A_LAPTOP).text


@pytest.mark.parametrize("change", ["serving", "included", "python"])
def test_a_lock_is_stale_when_anything_it_was_resolved_from_changed(
    locked: Any, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked.write("requirements.txt", "-r base.txt\n")
    locked.write("base.txt", "six\n")
    before = locks.inputs(locked.workspace())
    if change == "serving":
        monkeypatch.setattr(serving, "REQUIREMENTS", (*serving.REQUIREMENTS, "six"))
    elif change == "included":
        locked.write("base.txt", "six<2\n")
    else:
        locked.serve(entry_script="score.py", dependencies="requirements.txt", python="3.12")
    assert locks.inputs(locked.workspace()) != before


def test_what_a_stage_asks_of_its_service_is_in_the_lock(locked: Any) -> None:
    before = locks.inputs(locked.workspace())
    file = json.loads((locked.root / "stageway.yml").read_text())
    locked.write("stageway.yml", json.dumps({**file, "stages": {"dev": {"collect": {"share": "10%"}}}}))
    assert locks.inputs(locked.workspace()) != before
    assert "pyarrow" in locks.current(locked.workspace(), ON_A_LAPTOP).names


def test_pins_that_still_fit_stay(locked: Any) -> None:
    locked.write("requirements.txt", "six==1.16.0\n")
    locks.resolve(locked.workspace())
    locked.write("requirements.txt", "six>=1.15\n")
    assert "six==1.16.0" in locks.resolve(locked.workspace()).read_text()
    assert "six==1.16.0" not in locks.resolve(locked.workspace(), upgrade=True).read_text()


def test_a_conflict_with_serving_names_both_sides(times: Any) -> None:
    times.write("requirements.txt", "orjson<3\n")
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    with pytest.raises(PackagingError, match=r"requirements.txt: cannot be resolved.*orjson<3.*orjson>=3.10"):
        locks.resolve(times.workspace())
    assert not (times.root / "stageway.lock").exists()


def test_a_package_that_does_not_exist_is_said_by_the_resolver(times: Any) -> None:
    times.write("requirements.txt", "stageway-tests-name-no-such-package==1\n")
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    with pytest.raises(PackagingError, match="stageway-tests-name-no-such-package was not found in"):
        locks.resolve(times.workspace())


def test_a_failed_resolution_keeps_the_old_lock(locked: Any) -> None:
    before = (locked.root / "stageway.lock").read_text()
    locked.write("requirements.txt", "orjson<3\n")
    with pytest.raises(PackagingError):
        locks.resolve(locked.workspace())
    assert (locked.root / "stageway.lock").read_text() == before


def test_a_conda_file_is_no_requirements_file(times: Any) -> None:
    times.write("conda.yml", "dependencies: []\n")
    times.serve(entry_script="score.py", dependencies="conda.yml")
    with pytest.raises(ConfigError, match=r"serve.dependencies: 'conda.yml' is not a requirements file"):
        locks.resolve(times.workspace())


def test_two_resolutions_at_once_leave_one_whole_lock(locked: Any) -> None:
    code = (
        "import sys; from pathlib import Path; from stageway.config.workspace import Workspace; "
        "from stageway.images import lock; "
        "lock.resolve(Workspace.open(Path(sys.argv[1]), {'STAGEWAY_CACHE': sys.argv[2]}))"
    )
    command = [sys.executable, "-c", code, str(locked.root), str(locked.cache)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    lock = locks.read(locked.root / "stageway.lock")
    assert lock is not None
    assert lock.inputs == locks.inputs(locked.workspace())
    assert sorted(path.name for path in locked.root.glob(".stageway.lock*")) == []


def test_a_comment_does_not_change_the_digest_and_a_pin_does(locked: Any) -> None:
    lock = locks.read(locked.root / "stageway.lock")
    assert lock is not None
    assert locks.Lock(lock.path, "# more\n" + lock.text).digest == lock.digest
    assert locks.Lock(lock.path, lock.text.replace("six==1.17.0", "six==1.16.0")).digest != lock.digest


def test_where_packages_are_is_read_from_the_requirements_and_not_kept_in_the_lock(times: Any, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    times.write("requirements.txt", f"--find-links {(tmp_path / 'wheels').as_uri()}\n-r more.txt\nsix\n")
    times.write("more.txt", "--extra-index-url=https://example.invalid/simple\n")
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    assert locks.index_options(times.workspace()) == [
        f"--find-links {(tmp_path / 'wheels').as_uri()}",
        "--extra-index-url=https://example.invalid/simple",
    ]


def test_a_package_that_only_a_folder_of_wheels_has_is_locked_and_installed(times: Any, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "stageway_tests_only_here")
    times.write("requirements.txt", f"--find-links {(tmp_path / 'wheels').as_uri()}\nstageway-tests-only-here\n")
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    workspace = times.workspace(tmp_path / "cache")
    assert str(tmp_path) not in locks.resolve(workspace).read_text()
    content = LayerStore(workspace.cache).content(dependencies(workspace))
    assert (content / "stageway_tests_only_here.py").is_file()


def wheel(folder: Path, name: str) -> None:
    """Write the smallest wheel."""
    folder.mkdir()
    information = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{information}/RECORD", f"{name}.py,,\n{information}/RECORD,,\n")


def test_only_models_served_without_a_script_get_what_an_onnx_form_runs_with(times: Any) -> None:
    times.write("requirements.txt", "scikit-learn\n")
    found = {}
    for name, keys in {"script": {"entry_script": "score.py"}, "off": {"accelerate": "off"}, "auto": {}}.items():
        times.serve(dependencies="requirements.txt", **keys)
        found[name] = locks.inputs(times.workspace())
    assert found["script"] == found["off"] != found["auto"]
    assert "onnxruntime" in locks.current(times.workspace(), ON_A_LAPTOP).names


def test_what_an_onnx_form_runs_with_gives_way_to_the_users_packages(times: Any) -> None:
    times.write("requirements.txt", "scikit-learn\nonnxruntime==1.16.3\n")
    times.serve(dependencies="requirements.txt")
    heard: list[str] = []
    with output.notes_to(heard.append):
        lock = locks.current(times.workspace(), ON_A_LAPTOP)
    assert "onnxruntime==1.16.3" in lock.text
    assert heard[-1] == "onnxruntime does not fit with requirements.txt: the models are served as they are"
    assert locks.current(times.workspace(), IN_CI).text == lock.text


def test_a_lock_is_read_package_by_package() -> None:
    text = 'a-b==1.0 ; python_version < "3.12" \\\n    --hash=sha256:00\nC_d==2 \\\n    --hash=sha256:11\n'
    lock = locks.Lock(Path("stageway.lock"), text)
    assert lock.pins == ['a-b==1.0 ; python_version < "3.12"', "C_d==2"]
    assert lock.without("c-d").text == text.partition("C_d")[0]
