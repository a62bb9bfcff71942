"""A trial is the real service, for a short while, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stageway import images
from stageway.bundle import Bundle, trial
from stageway.errors import RefusedError

TELL = """\
import json
import os
import sys


def run(data):
    return {"environ": dict(os.environ), "path": sys.path, "modules": sorted(sys.modules), "cwd": os.getcwd()}
"""


def build(times: Any) -> Bundle:
    shelf = times.shelf
    return images.build(times.workspace(), shelf.add(), shelf)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every trial of these tests removes its folder, and what was in it."""
    yield
    assert folders_of(os.getpid()) == []


def folders_of(owner: int) -> list[Path]:
    notes = Path(trial.PLACE).glob(f"{trial.PREFIX}*/{trial.NOTE}")
    return [note.parent for note in notes if f'"owner": [{owner},' in note.read_text()]


def test_a_trial_answers_as_the_version_that_it_is(times: Any) -> None:
    with trial.serve(build(times), release="r-1") as service:
        reply = service.request("POST", "/score", b'{"data": [1, 2.5]}')
        assert (reply.status, reply.json()) == (200, [2, 5.0])
        assert reply.headers["x-stageway-release"] == "r-1"
        assert reply.headers["x-stageway-model-version"] == "times:1"
        assert 0 < reply.seconds < 60
        assert service.start_seconds > 0
        assert psutil.pid_exists(service.pid)
        group = [one.pid for one in psutil.Process(service.pid).children(recursive=True)]
    assert group
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in group)
    assert not service.folder.exists()


def test_the_caller_does_not_reach_the_service(times: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json.py", "orjson.py", "sitecustomize.py", "score.py"):
        (tmp_path / name).write_text("raise SystemExit('the caller is here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.chdir(tmp_path)
    times.write("score.py", TELL)
    with trial.serve(build(times)) as service:
        told = service.request("POST", "/score", b"{}").json()
    assert "hidden" not in told["environ"].values()
    assert "AWS_SECRET_ACCESS_KEY" not in told["environ"]
    assert not any(str(tmp_path / "json.py").startswith(f"{path}/json") for path in told["path"] if path)
    assert not any("site-packages" in path for path in told["path"])
    assert not {"pydantic", "stageway.facts", "site-packages"} & set(told["modules"])
    assert told["cwd"].endswith("/app")


def test_a_service_that_is_asked_for_its_contract_says_the_declared_one(times: Any) -> None:
    times.sample("one", {"data": [1]}, [2])
    times.serve(entry_script="score.py", samples="samples")
    with trial.serve(build(times)) as service:
        contract = service.contract()
    assert contract.source == "samples"
    assert contract.response == {"type": "array", "items": {"type": "number"}}


@pytest.mark.parametrize(
    ("script", "sentence", "log"),
    [
        ("import no_such_module\n", "score.py does not import: ModuleNotFoundError", "no_such_module"),
        ("def init(): pass\n", "score.py has no function run", "run"),
        ("def init(): raise ValueError('no weights')\ndef run(data): ...\n", "no weights", "ValueError"),
        ("import os\ndef init(): os._exit(7)\ndef run(data): ...\n", "the service of times:1 does not start", ""),
        ("syntax error\n", "does not import: SyntaxError", "syntax error"),
    ],
)
def test_a_service_that_does_not_start_is_refused_with_its_log(
    times: Any, script: str, sentence: str, log: str
) -> None:
    times.write("score.py", script)
    with pytest.raises(RefusedError) as caught, trial.serve(build(times)):
        raise AssertionError("it started")
    assert caught.value.message.startswith("the service of times:1 does not start: ")
    assert sentence in caught.value.message
    assert log in caught.value.detail


@pytest.mark.parametrize(
    ("keys", "way_out"),
    [
        ({}, "add it to serve.dependencies, or set serve.source-directory when it is a file of yours"),
        ({"source_directory": "."}, "add it to serve.dependencies"),
    ],
)
def test_a_missing_module_is_said_with_the_key_that_helps(times: Any, keys: dict[str, Any], way_out: str) -> None:
    times.write("score.py", "import helper\ndef run(data): ...\n")
    times.serve(entry_script="score.py", **keys)
    with pytest.raises(RefusedError) as caught, trial.serve(build(times)):
        raise AssertionError("it started")
    assert caught.value.message.endswith(f"No module named 'helper'; {way_out}")


def test_a_service_that_never_gets_ready_is_refused_in_time(times: Any) -> None:
    times.write("score.py", "import time\ndef init():\n    print('waiting')\n    time.sleep(600)\ndef run(data): ...\n")
    sentence = r"does not answer after 3 s; see what its init\(\) waits for"
    with pytest.raises(RefusedError, match=sentence) as caught, trial.serve(build(times), timeout=3):
        raise AssertionError("it started")
    assert "waiting" in caught.value.detail


def test_a_service_that_ends_meanwhile_is_said(times: Any) -> None:
    with trial.serve(build(times)) as service:
        os.killpg(service.pid, signal.SIGKILL)
        with pytest.raises(RefusedError, match=r"POST /score: the service gave no answer"):
            service.request("POST", "/score", b'{"data": [1]}')


def test_what_a_killed_caller_left_is_removed_by_the_next_trial(times: Any) -> None:
    bundle = build(times)
    code = (
        "import sys, time; from pathlib import Path; from stageway.bundle import Bundle, trial\n"
        "with trial.serve(Bundle.read(Path(sys.argv[1]))) as service:\n"
        "    print(service.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bundle.folder)], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        orphan = int(caller.stdout.readline())
        assert len(folders_of(caller.pid)) == 1
        caller.kill()
    assert psutil.pid_exists(orphan)
    with trial.serve(bundle):
        assert folders_of(caller.pid) == []
    end = time.monotonic() + 30
    while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != "zombie" and time.monotonic() < end:
        time.sleep(0.01)
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == "zombie"


def test_a_trial_of_somebody_who_lives_is_not_swept(times: Any) -> None:
    bundle = build(times)
    with trial.serve(bundle) as one, trial.serve(bundle) as other:
        assert one.request("GET", "/").status == other.request("GET", "/").status == 200


def test_a_trial_outlives_a_clock_that_is_set(times: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, create_time = build(times), psutil.Process.create_time
    with trial.serve(bundle) as service:
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 1.5)
        trial.sweep()
        assert service.folder.is_dir()
        assert service.request("GET", "/").status == 200


def test_without_proc_a_start_is_the_same_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(path: Path, **how: Any) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", nothing)
    pid, start = trial._known(os.getpid())
    assert start == psutil.Process().create_time()
    assert trial._lives([pid, start + 1.5])
    assert not trial._lives([pid, start + 60])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_folder_of_somebody_else_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PLACE", str(tmp_path))
    theirs, mine = tmp_path / f"{trial.PREFIX}theirs", tmp_path / f"{trial.PREFIX}mine"
    for folder in (theirs, mine):
        folder.mkdir()
        (folder / trial.NOTE).write_text('{"owner": [0, "long ago"], "service": null}')
    os.chown(theirs, 1, -1)
    trial.sweep()
    assert theirs.is_dir()
    assert not mine.exists()
