"""The keeper outlives its callers and is outlived by its services: kills, crashes, and workspaces that go away."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import requests

from stageway.errors import StagewayError, TargetError
from stageway.targets.base import Observed
from stageway.targets.local import logs, wire
from stageway.targets.local.keeper import Keeper, locked
from stageway.targets.local.place import Labels, ServiceFile, lock_file, runtime_folder, same_boot, socket_path

START = 0.4


def version_at(endpoint: str | None) -> str:
    return requests.get(f"{endpoint}/", timeout=10, headers={"connection": "close"}).headers["x-version"]


def kill_keeper(local: Any) -> int:
    """Kill the keeper and return its pid; it is gone when this returns."""
    pid = int(local.keeper_pid)
    keeper = psutil.Process(pid)
    keeper.kill()
    local.until(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE)
    return pid


def test_the_keeper_is_small(local: Any) -> None:
    heavy = "{'mlflow', 'sqlalchemy', 'pydantic', 'requests', 'rich', 'typer', 'yaml', 'numpy', 'granian'}"
    code = f"import sys, stageway.targets.local.keeper as k; sys.exit(sorted({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_keeper_has_no_terminal_no_parent_and_few_variables(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hush")
    local.target.apply(local.want(1))
    keeper = psutil.Process(local.keeper_pid)
    assert keeper.terminal() is None
    assert keeper.ppid() != os.getpid()
    assert keeper.cwd() == "/"
    assert os.getsid(keeper.pid) != os.getsid(0)
    (service,) = local.processes()
    for process in (keeper, service):
        assert "SOME_SECRET" not in process.environ()


def test_sockets_and_files_are_for_their_owner_only(local: Any) -> None:
    local.target.apply(local.want(1))
    runtime = runtime_folder(local.workspace.state)
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert runtime.parent.stat().st_mode & 0o777 == 0o700
    for path in local.workspace.state.glob("services/*/*/l*.json"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert all(
        connection.laddr.ip == "127.0.0.1" for connection in psutil.Process(local.keeper_pid).net_connections("tcp")
    )


def test_socket_paths_are_short_however_deep_the_workspace_is(local: Any, tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["a-folder-with-a-long-name"] * 8)
    deep.mkdir(parents=True)
    runtime = runtime_folder(deep)
    try:
        assert len(str(socket_path(runtime, "s" * 100, "r" * 100))) < 104
        assert len(str(runtime / wire.SOCKET)) < 104
    finally:
        runtime.rmdir()


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as short:
        open_to_all, link = Path(short) / "open", Path(short) / "link"
        open_to_all.mkdir()
        open_to_all.chmod(0o777)
        link.symlink_to(tmp_path)
        for folder in (open_to_all, link):
            monkeypatch.setenv("STAGEWAY_RUNTIME_DIR", str(folder))
            with pytest.raises(TargetError, match="is not a folder that only you can use"):
                runtime_folder(tmp_path)


def test_a_folder_for_sockets_that_is_too_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEWAY_RUNTIME_DIR", "/tmp/" + "x" * 60)
    with pytest.raises(TargetError, match="too long for paths of sockets"):
        runtime_folder(tmp_path)


def test_a_killed_keeper_is_replaced_by_one_that_adopts(local: Any) -> None:
    before = local.target.apply(local.want(1))
    (service,) = local.processes()
    first = kill_keeper(local)
    assert service.is_running()
    assert local.target.observe("diabetes-dev") == before
    assert local.keeper_pid != first
    assert version_at(before.endpoint) == "1"
    assert [one.pid for one in local.processes()] == [service.pid]
    assert local.target.apply(local.want(1)) == before
    assert [one.pid for one in local.processes()] == [service.pid]


def test_an_adopted_service_is_kept_like_any_other(local: Any) -> None:
    local.target.apply(local.want(1))
    kill_keeper(local)
    endpoint = local.target.observe("diabetes-dev").endpoint
    (service,) = local.processes()
    service.kill()
    local.until(lambda: local.target.observe("diabetes-dev").serving.restarts == 1)
    local.until(lambda: local.target.observe("diabetes-dev").serving.health == "ready")
    assert version_at(endpoint) == "1"
    assert len(local.processes()) == 1


def test_what_died_with_the_keeper_is_started_again(local: Any) -> None:
    before = local.target.apply(local.want(1))
    (service,) = local.processes()
    kill_keeper(local)
    service.kill()
    local.until(lambda: not local.processes())
    local.until(lambda: local.target.observe("diabetes-dev").serving.health == "ready")
    assert version_at(before.endpoint) == "1"


def test_a_process_with_the_same_number_is_not_touched(local: Any) -> None:
    want = local.want(1)
    local.target.apply(want)
    kill_keeper(local)
    (service,) = local.processes()
    service.kill()
    local.until(lambda: not local.processes())
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        path = local.workspace.state / "services" / "diabetes-dev" / want.revision / "labels.json"
        labels = json.loads(path.read_text())
        started = psutil.Process(stranger.pid).create_time()
        path.write_text(json.dumps({**labels, "pid": stranger.pid, "started": started}))
        local.until(lambda: local.target.observe("diabetes-dev").serving.health == "ready")
        local.target.delete("diabetes-dev")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_was_started_but_not_written_down_is_found(local: Any) -> None:
    want = local.want(1)
    local.target.apply(want)
    (service,) = local.processes()
    kill_keeper(local)
    path = local.workspace.state / "services" / "diabetes-dev" / want.revision / "labels.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": None, "started": None}))
    assert local.target.observe("diabetes-dev").serving.health == "ready"
    assert [one.pid for one in local.processes()] == [service.pid]


def test_a_half_finished_update_is_cleared(local: Any) -> None:
    local.target.apply(local.want(1))
    applying = threading.Thread(target=lambda: local.target.apply(local.want(2, slow_start=2)))
    new = local.workspace.state / "services" / "diabetes-dev" / local.want(2, slow_start=2).revision / "labels.json"
    applying.start()
    local.until(lambda: len(local.processes()) == 2 and new.exists())
    kill_keeper(local)
    assert [one.label for one in local.target.observe("diabetes-dev").revisions][:1] == ["diabetes:1"]
    applying.join()  # it asks the new keeper again
    assert local.target.observe("diabetes-dev").serving.label == "diabetes:2"
    local.until(lambda: len(local.processes()) == 1)


def test_a_crashed_service_is_started_again(local: Any) -> None:
    endpoint = local.target.apply(local.want(1)).endpoint
    with pytest.raises((requests.ConnectionError, AssertionError)):
        assert requests.get(f"{endpoint}/die", timeout=5).status_code != 502
    local.until(lambda: local.target.observe("diabetes-dev").serving.restarts == 1)
    local.until(lambda: local.target.observe("diabetes-dev").serving.health == "ready")
    assert version_at(endpoint) == "1"


def test_a_service_that_keeps_crashing_has_failed_and_says_why(local: Any) -> None:
    endpoint = local.target.apply(local.want(1, crash_after=0.05)).endpoint
    local.until(lambda: local.target.observe("diabetes-dev").serving.health == "failed")
    failed = local.target.observe("diabetes-dev").serving
    assert failed.reason == "ended 5 times in a row; the last time: the process of diabetes:1 ended with exit code 7"
    assert failed.log_tail.splitlines()[-1] == "stand-in 1 listens"
    assert failed.restarts == 4
    answer = requests.get(str(endpoint), timeout=5)
    assert answer.status_code == 503
    assert answer.json()["message"].startswith("service diabetes-dev is starting or has failed")
    assert local.target.apply(local.want(2)).serving.health == "ready"
    assert version_at(endpoint) == "2"


def test_workers_whose_parent_was_killed_do_not_stay(local: Any) -> None:
    local.target.apply(local.want(1))
    (service,) = local.processes()
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env=service.environ(), cwd=service.cwd()
    )
    service.kill()
    assert child.wait(10) == -signal.SIGKILL


def test_a_client_that_is_killed_does_not_stop_what_it_asked_for(local: Any) -> None:
    local.target.apply(local.want(1))
    applying = command(local, 2)
    local.until(lambda: len(local.processes()) == 2)
    applying.kill()
    applying.wait()
    local.until(lambda: local.target.observe("diabetes-dev").serving.label == "diabetes:2")
    local.until(lambda: len(local.processes()) == 1)
    (service,) = local.processes()
    local.target.apply(local.want(2, slow_start=START))
    assert [one.pid for one in local.processes()] == [service.pid]


def command(local: Any, version: int) -> subprocess.Popen[bytes]:
    """Apply a version that takes ``START`` seconds to start, in a process of its own."""
    arguments = [sys.executable, str(Path(__file__).parent / "apply.py"), str(local.root), str(version), str(START)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_only_one_keeper_whoever_is_first(local: Any) -> None:
    local.target.apply(local.want(1))
    kill_keeper(local)
    found: list[Observed] = []
    threads = [threading.Thread(target=lambda: found.append(local.target.observe("diabetes-dev"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert {one.serving.label for one in found if one.serving} == {"diabetes:1"}
    state = str(local.workspace.state)
    keepers = [one for one in psutil.process_iter(["cmdline"]) if state in (one.info["cmdline"] or [])]
    assert len(keepers) == 1


def test_a_keeper_of_another_version_is_stopped_and_not_asked(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    local.target.apply(local.want(1))
    monkeypatch.setattr(wire, "VERSION", 2)
    with pytest.raises(TargetError, match="keeper is of another version of Stageway"):
        local.target.observe("diabetes-dev")
    assert local.target.down() == ["diabetes-dev"]


def test_a_workspace_that_is_removed_takes_its_services_along(local: Any) -> None:
    local.target.apply(local.want(1))
    keeper, (service,) = psutil.Process(local.keeper_pid), local.processes()
    shutil.rmtree(local.root)
    local.until(lambda: not keeper.is_running() and not service.is_running())


def test_down_during_a_first_apply_ends_it(local: Any) -> None:
    errors: list[StagewayError] = []

    def first() -> None:
        try:
            local.target.apply(local.want(1, slow_start=60))
        except StagewayError as error:
            errors.append(error)

    applying = threading.Thread(target=first)
    applying.start()
    local.until(local.processes)
    keeper = psutil.Process(local.keeper_pid)
    local.target.down()
    applying.join()
    assert "told to stop before this was done" in errors[0].message
    local.until(lambda: not keeper.is_running() and not local.processes())


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """A keeper in this process that looks after its services quickly; its workspace is a folder with its lock."""
    monkeypatch.setattr("stageway.targets.local.keeper.WATCH", 0.01)
    lock = locked(tmp_path)
    assert lock is not None
    return Keeper(tmp_path, tmp_path, lock, 0o077)


def test_a_keeper_whose_look_fails_goes_on_looking(watched: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = Keeper.look

    async def failing(self: Keeper, seconds: int) -> None:
        looks.append(seconds)
        if len(looks) < 3:
            raise RuntimeError("a bug")
        lock_file(self.state).unlink(missing_ok=True)
        await look(self, seconds)

    monkeypatch.setattr(Keeper, "look", failing)
    asyncio.run(asyncio.wait_for(watched.watch(), 30))
    assert watched.finished.is_set()


def test_a_workspace_is_gone_only_when_several_looks_in_a_row_say_so(
    watched: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(times: int) -> bool:
        for at in range(times):
            await watched.look(at)
        return watched.finished.is_set()

    stat, failing = Path.stat, OSError(errno.EIO, "Input/output error")

    def broken(path: Path, **how: Any) -> os.stat_result:
        if path == lock_file(watched.state):
            raise failing
        return stat(path, **how)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "stat", broken)
        assert not asyncio.run(look(10))
    lock_file(watched.state).rename(watched.state / "elsewhere")
    assert not asyncio.run(look(2))
    (watched.state / "elsewhere").rename(lock_file(watched.state))
    assert not asyncio.run(look(2))
    lock_file(watched.state).unlink()
    assert asyncio.run(look(3))


def test_a_workspace_that_moves_starts_anew_where_it_is(local: Any, tmp_path: Path) -> None:
    before = local.target.apply(local.want(1))
    keeper, (service,) = psutil.Process(local.keeper_pid), local.processes()
    moved = tmp_path / "moved"
    local.root.rename(moved)
    local.until(lambda: not keeper.is_running() and not service.is_running())
    assert not local.root.exists()
    other = type(local)(moved)
    try:
        assert version_at(other.target.apply(other.want(2)).endpoint) == "2"
        assert before.serving is not None
    finally:
        other.target.down()


def taken(local: Any, port: int) -> socket.socket:
    """Listen on a port as soon as the system has taken it back from a killed keeper."""
    found: list[socket.socket] = []

    def bound() -> bool:
        try:
            found.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            return False
        return True

    local.until(bound)
    return found[0]


def test_a_port_that_was_taken_meanwhile_is_taken_back_when_it_is_free(local: Any, free_port: int) -> None:
    local.target.apply(local.want(1, port=free_port))
    kill_keeper(local)
    with taken(local, free_port):
        observed = local.target.observe("diabetes-dev")
        assert observed.serving.health == "failed"
        assert observed.serving.reason.startswith(f"port {free_port} is in use by another program")
    local.until(lambda: local.target.observe("diabetes-dev").serving.health == "ready")
    assert version_at(observed.endpoint) == "1"


def test_a_port_that_we_chose_and_lost_is_chosen_anew_by_the_next_apply(local: Any) -> None:
    before = local.target.apply(local.want(1)).endpoint
    kill_keeper(local)
    with taken(local, int(before.rpartition(":")[2])):
        observed = local.target.apply(local.want(1))
        assert observed.endpoint != before
        assert version_at(observed.endpoint) == "1"


def test_a_log_that_grows_is_cut_and_no_line_is_missed(local: Any) -> None:
    want = local.want(1, chatter=45_000)
    local.target.apply(want)
    log = local.workspace.state / "services" / "diabetes-dev" / want.revision / "service.log"
    local.until(lambda: logs.older(log).exists())
    assert log.stat().st_size < logs.LONGEST
    found = [line.split(" ")[1] for line in logs.tail(log, 45_001) if line.startswith("line ")]
    assert found == [str(number) for number in range(45_000)]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"service": "x"}'])
def test_damaged_files_do_not_stop_the_keeper(local: Any, damage: str) -> None:
    want = local.want(1)
    local.target.apply(want)
    kill_keeper(local)
    folder = local.workspace.state / "services" / "diabetes-dev"
    (folder / want.revision / "labels.json").write_text(damage)
    local.target.observe("diabetes-dev")
    assert version_at(local.target.apply(local.want(2)).endpoint) == "2"
    assert version_at(local.target.apply(want).endpoint) == "1"
    local.until(lambda: len(local.processes()) == 1)


@pytest.mark.parametrize("first", [True, False], ids=["the first", "an update"])
def test_a_revision_whose_share_cannot_be_written_does_not_stay(local: Any, free_port: int, first: bool) -> None:
    local.target.apply(local.want(1, stage="prod"))
    before = None if first else local.target.apply(local.want(1, port=free_port))
    file = local.workspace.state / "services" / "diabetes-dev" / "service.json"
    file.unlink(missing_ok=True)
    file.mkdir(parents=True)  # nothing can be put in its place
    (file / "in-the-way").touch()
    with pytest.raises(TargetError, match=r"service\.json.*; the workspace must be writable and have room"):
        local.target.apply(local.want(2, port=free_port))
    local.until(lambda: len(local.processes()) == (0 if first else 1))
    if before is None:
        socket.create_server(("127.0.0.1", free_port)).close()
    else:
        assert version_at(before.endpoint) == "1"
    shutil.rmtree(file)
    assert local.target.apply(local.want(2, port=free_port)).serving.label == "diabetes:2"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"service": "x"}'])
def test_a_damaged_service_file_is_an_error_and_ends_nothing(local: Any, damage: str) -> None:
    before = local.target.apply(local.want(1))
    (service,) = local.processes()
    kill_keeper(local)
    file = local.workspace.state / "services" / "diabetes-dev" / "service.json"
    whole = file.read_text()
    file.write_text(damage)
    said = r"service\.json: is damaged; restore it, or remove "
    with pytest.raises(TargetError, match=said):
        local.target.observe("diabetes-dev")
    with pytest.raises(TargetError, match=said):
        local.target.apply(local.want(2))
    assert [one.pid for one in local.processes()] == [service.pid]
    file.write_text(whole)
    observed = local.target.observe("diabetes-dev")
    assert observed.serving.label == "diabetes:1"
    assert version_at(before.endpoint) == "1"
    assert [one.pid for one in local.processes()] == [service.pid]


def test_what_a_damaged_service_file_leaves_running_can_be_stopped(local: Any) -> None:
    local.target.apply(local.want(1))
    kill_keeper(local)
    (local.workspace.state / "services" / "diabetes-dev" / "service.json").write_text("{")
    assert local.target.down() == ["diabetes-dev"]
    local.until(lambda: not local.processes())


@pytest.mark.parametrize(
    ("one", "same"),
    [("1790000029.9", True), ("1790000030.4", True), ("1790000300.0", False), ("0b1c-a-boot-id", False), (None, False)],
)
def test_a_boot_that_is_told_by_its_time_is_the_same_within_seconds(one: str | None, same: bool) -> None:
    assert same_boot(one, "1790000030.1") is same


def test_a_boot_that_has_an_id_is_told_by_it() -> None:
    assert same_boot("0b1c-a-boot-id", "0b1c-a-boot-id")
    assert not same_boot("0b1c-a-boot-id", "0b1c-another")


def test_labels_and_service_file_go_there_and_back() -> None:
    labels = Labels("s", "dev", "r-1", "r", "m:1", "sha256:0", 5, "nonce", 7, 1.5, 2)
    assert Labels.from_json(json.loads(json.dumps(labels.to_json()))) == labels
    file = ServiceFile("s", "dev", 8890, True, {"r-1": 1.0}, True)
    assert ServiceFile.from_json(json.loads(json.dumps(file.to_json()))) == file


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_kills_at_any_moment_leave_what_the_same_command_finishes(local: Any, seed: int) -> None:
    """Kill keeper, services and applying commands at random moments; then the same apply gives the same place."""
    random_ = random.Random(seed)
    local.target.apply(local.want(1))
    for version in range(2, 7):
        applying = command(local, version)
        time.sleep(random_.uniform(0.3, 1.6))
        for victim in random_.sample(["keeper", "service", "client"], random_.randint(1, 3)):
            if victim == "client":
                applying.kill()
            elif victim == "keeper":
                try:
                    os.kill(local.keeper_pid, signal.SIGKILL)
                except (OSError, ValueError):
                    continue
            else:
                for service in random_.sample(local.processes(), 1) if local.processes() else []:
                    with_suppress_kill(service)
            time.sleep(random_.uniform(0, 0.1))
        applying.wait(60)
        for _ in range(3):
            try:
                observed = local.target.apply(local.want(version, slow_start=START))
                break
            except StagewayError as error:
                last = error
        else:
            raise last
        assert observed.serving.label == f"diabetes:{version}"
        local.until(lambda endpoint=observed.endpoint, version=version: answers(endpoint) == str(version))
        local.until(lambda: len(local.processes()) == 1)
        local.until(lambda: len(local.target.observe("diabetes-dev").revisions) == 1)


def with_suppress_kill(service: psutil.Process) -> None:
    try:
        service.kill()
    except psutil.NoSuchProcess:
        pass


def answers(endpoint: str) -> str | None:
    try:
        return version_at(endpoint)
    except (requests.RequestException, KeyError):
        return None
