"""What of a project goes into the source layer, and what may not."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stageway.errors import ConfigError, PackagingError
from stageway.images import sources


def files(folder: Path) -> dict[str, str]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def gathered(times: Any) -> sources.Sources:
    found = sources.gather(times.workspace())
    assert found is not None
    return found


def test_without_a_source_directory_the_entry_script_goes_alone(times: Any) -> None:
    times.write("helper.py", "")
    found = gathered(times)
    assert sorted(found.files) == ["score.py"]
    assert (found.entry_script, found.directory) == ("score.py", None)


def test_an_entry_script_in_a_folder_lands_in_the_app_root(times: Any) -> None:
    times.write("deploy/score.py", "def run(data): return 1")
    times.serve(entry_script="deploy/score.py")
    assert gathered(times).entry_script == "score.py"


def test_a_source_directory_goes_whole_under_its_own_name(times: Any, tmp_path: Path) -> None:
    times.write("src/score.py", "def run(data): return 1")
    times.write("src/data/extra.json", "{}")
    times.write("src/.hidden", "h")
    times.write("src/.gitignore", "data/\n")
    times.serve(source_directory="src", entry_script="score.py")
    found = gathered(times)
    assert (found.entry_script, found.directory) == ("src/score.py", "src")
    (tmp_path / "into").mkdir()
    found.copy(tmp_path / "into", found.listing())
    assert files(tmp_path / "into") == {
        "src/score.py": "def run(data): return 1",
        "src/data/extra.json": "{}",
        "src/.hidden": "h",
        "src/.gitignore": "data/\n",
    }


def test_the_project_itself_as_source_directory_is_the_app_root(times: Any) -> None:
    times.write("helper.py", "")
    times.serve(source_directory=".", entry_script="score.py")
    found = gathered(times)
    assert (found.entry_script, found.directory) == ("score.py", ".")
    assert {"helper.py", "score.py", "stageway.yml"} <= set(found.files)
    assert not any(name.startswith(".stageway/") for name in found.files)


def test_version_control_state_bytecode_and_virtual_environments_are_left_out(times: Any) -> None:
    for name in (".git/config", ".stageway/state.db", "__pycache__/x.pyc", "old.pyc", "inner/__pycache__/y.pyc"):
        times.write(name, "x")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(times.root / "any-name")], check=True)
    times.serve(source_directory=".", entry_script="score.py")
    assert sorted(gathered(times).files) == ["score.py", "stageway.yml"]


@pytest.mark.parametrize(
    "name", [".env", ".env.production", "deep/er/.env", "id_rsa", "keys/id_ed25519", ".netrc", "cert.pfx", ".ENV"]
)
def test_what_looks_like_a_secret_is_refused_with_a_way_out(times: Any, name: str) -> None:
    times.write(name, "TOKEN=1")
    times.serve(source_directory=".", entry_script="score.py")
    with pytest.raises(PackagingError, match=r"looks like a secret.*move it out of there") as caught:
        gathered(times)
    assert str(times.root / name) in caught.value.message
    assert "TOKEN" not in caught.value.message


@pytest.mark.parametrize(("text", "refused"), [("BEGIN PRIVATE KEY", True), ("BEGIN CERTIFICATE", False)])
@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_a_key_file_is_refused_when_it_holds_a_private_key(times: Any, name: str, text: str, refused: bool) -> None:
    times.write(name, text)
    times.serve(source_directory=".", entry_script="score.py")
    if refused:
        with pytest.raises(PackagingError, match="looks like a secret"):
            gathered(times)
    else:
        assert name in gathered(times).files


def test_an_example_of_a_secret_file_is_no_secret(times: Any) -> None:
    times.write(".env.example", "TOKEN=")
    times.serve(source_directory=".", entry_script="score.py")
    assert ".env.example" in gathered(times).files


def test_a_secret_beside_a_lone_entry_script_does_not_matter(times: Any) -> None:
    times.write(".env", "TOKEN=1")
    assert sorted(gathered(times).files) == ["score.py"]


def test_a_link_out_of_the_source_directory_is_refused(times: Any, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("x")
    (times.root / "inner").mkdir()
    (times.root / "inner" / "link").symlink_to("../../outside.txt")
    times.serve(source_directory=".", entry_script="score.py")
    with pytest.raises(PackagingError, match=r"inner/link: links to '../../outside.txt', outside of"):
        gathered(times)


def test_a_link_inside_the_source_directory_stays_a_link(times: Any, tmp_path: Path) -> None:
    (times.root / "alias.py").symlink_to("score.py")
    times.serve(source_directory=".", entry_script="score.py")
    (tmp_path / "into").mkdir()
    found = gathered(times)
    found.copy(tmp_path / "into", found.listing())
    assert (tmp_path / "into" / "alias.py").readlink() == Path("score.py")


def test_an_entry_script_that_went_away_is_a_mistake_of_the_file(times: Any) -> None:
    workspace = times.workspace()
    (times.root / "score.py").unlink()
    with pytest.raises(ConfigError, match=r"stageway.yml: serve.entry-script: no such file 'score.py'"):
        sources.gather(workspace)


def test_an_entry_script_is_python(times: Any) -> None:
    times.write("score.txt", "")
    times.serve(entry_script="score.txt")
    with pytest.raises(ConfigError, match=r"'score.txt' is not a Python file"):
        sources.gather(times.workspace())


def test_a_folder_for_models_in_the_sources_is_refused(times: Any) -> None:
    times.write("azureml-models/x", "")
    times.serve(source_directory=".", entry_script="score.py")
    with pytest.raises(ConfigError, match="azureml-models is where the models go"):
        gathered(times)


@contextmanager
def as_somebody(folder: Path) -> Iterator[None]:
    """Root reads everything, so look at *folder* with the eyes of ``nobody`` then."""
    if os.geteuid() != 0:
        yield
        return
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and "pytest" in str(parent):
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_file_is_named(times: Any) -> None:
    times.write("closed.txt", "").chmod(0)
    times.serve(source_directory=".", entry_script="score.py")
    found = gathered(times)
    with as_somebody(times.root), pytest.raises(PackagingError, match=r"closed.txt: cannot be read: permission denied"):
        found.listing()


def test_the_listing_changes_with_the_bytes_and_not_with_the_time(times: Any) -> None:
    before = gathered(times).listing()
    os.utime(times.root / "score.py", (1, 1))
    assert gathered(times).listing() == before
    times.write("score.py", "def run(data): return 2")
    assert gathered(times).listing() != before
