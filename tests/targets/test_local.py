"""What a person asks of the target ``local``: to run a release, to show it, to share traffic, to stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests

from stageway import plugins
from stageway.bundle import Launch
from stageway.errors import ConfigError, RefusedError, TargetError
from stageway.targets.base import Want
from stageway.targets.local import LocalTarget, ports


def version_at(endpoint: str | None) -> str:
    return requests.get(f"{endpoint}/", timeout=10, headers={"connection": "close"}).headers["x-version"]


def test_the_target_is_found_by_its_name() -> None:
    assert plugins.load("target", "local") is LocalTarget


def test_a_release_answers_when_apply_returns(local: Any) -> None:
    observed = local.target.apply(local.want(1))
    assert version_at(observed.endpoint) == "1"
    assert observed.serving.label == "diabetes:1"
    assert observed.serving.health == "ready"
    assert observed.endpoint.startswith("http://127.0.0.1:")
    assert local.target.observe("diabetes-dev") == observed


def test_the_labels_are_in_the_place(local: Any) -> None:
    want = local.want(1)
    local.target.apply(want)
    folder = local.workspace.state / "services" / "diabetes-dev" / want.revision
    labels = json.loads((folder / "labels.json").read_text())
    (process,) = local.processes()
    assert labels["release"] == want.release.id
    assert labels["model"] == "diabetes:1"
    assert labels["config"] == want.config.digest
    assert labels["pid"] == process.pid
    assert labels["started"] == pytest.approx(process.create_time(), abs=2)
    assert labels["nonce"] == process.environ()["STAGEWAY_NONCE"]


def test_the_same_want_again_changes_nothing(local: Any) -> None:
    first = local.target.apply(local.want(1))
    (before,) = local.processes()
    assert local.target.apply(local.want(1)) == first
    assert [one.pid for one in local.processes()] == [before.pid]


def test_two_at_once_make_one_process(local: Any) -> None:
    local.target.apply(local.want(1))
    wants = [local.want(2, slow_start=0.3)] * 3
    threads = [threading.Thread(target=local.target.apply, args=(want,)) for want in wants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    observed = local.target.observe("diabetes-dev")
    assert observed.serving.label == "diabetes:2"
    assert observed.serving.restarts == 0
    local.until(lambda: len(local.processes()) == 1)
    starts = [line for line in local.target.logs("diabetes-dev") if "listens" in line]
    assert len(starts) == 1


def test_an_update_ends_the_old_process_and_leaves_its_log_only(local: Any) -> None:
    old = local.want(1)
    local.target.apply(old)
    observed = local.target.apply(local.want(2))
    assert version_at(observed.endpoint) == "2"
    local.until(lambda: [one.label for one in local.target.observe("diabetes-dev").revisions] == ["diabetes:2"])
    folder = local.workspace.state / "services" / "diabetes-dev" / old.revision
    assert [path.name for path in folder.iterdir()] == ["service.log"]


def test_another_config_is_another_revision_of_the_same_release(local: Any) -> None:
    first = local.target.apply(local.want(1)).serving
    second = local.target.apply(local.want(1, drain_timeout=1)).serving
    assert second.release == first.release
    assert second.name != first.name


def test_stages_are_services_of_their_own(local: Any) -> None:
    dev = local.target.apply(local.want(1))
    prod = local.target.apply(local.want(2, stage="prod"))
    assert (version_at(dev.endpoint), version_at(prod.endpoint)) == ("1", "2")
    assert dev.endpoint != prod.endpoint


@pytest.mark.parametrize("before", [0, 1])
def test_what_cannot_start_is_refused_with_its_own_sentence(local: Any, before: int) -> None:
    if before:
        local.target.apply(local.want(1))
    with pytest.raises(RefusedError, match=r"^diabetes:2 cannot start: score.py has no function run\(\)$") as refused:
        local.target.apply(local.want(2, fail="score.py has no function run()"))
    assert refused.value.detail.startswith("Traceback")
    observed = local.target.observe("diabetes-dev")
    assert [one.label for one in observed.revisions] == ["diabetes:1"] * before
    if before:
        assert version_at(observed.endpoint) == "1"
    assert len(local.processes()) == before
    folder = local.workspace.state / "services" / "diabetes-dev"
    assert len(list(folder.glob("*/service.log"))) == before + 1
    assert len(list(folder.glob("*/labels.json"))) == before
    assert not list(folder.glob(".incoming/*"))
    if not before:
        assert "Traceback (most recent call last):" in list(local.target.logs("diabetes-dev"))


def test_what_never_answers_is_refused_in_time(local: Any) -> None:
    with pytest.raises(RefusedError, match=r"diabetes:1 did not answer within 0.5 s; stages.dev.ready-timeout"):
        local.target.apply(local.want(1, silent=True, ready_timeout=0.5))
    assert not local.processes()


class WithoutProgram(LocalTarget):
    """A target whose services have no program to run."""

    def launch(self, want: Want, fresh: Path, app: Path, *, socket: Path, control: Path) -> Launch:
        fresh.mkdir()
        return Launch(("/no/such/python",), {}, app)


def test_a_program_that_does_not_exist_is_refused(local: Any) -> None:
    with pytest.raises(RefusedError, match="diabetes:1 cannot start: /no/such/python: No such file or directory"):
        WithoutProgram(local.workspace).apply(local.want(1))
    assert local.target.observe("diabetes-dev").revisions == ()


def test_the_asked_port_is_taken_and_moved(local: Any, free_port: int) -> None:
    first = local.target.apply(local.want(1, port=free_port))
    assert first.endpoint == f"http://127.0.0.1:{free_port}"
    with ports.free("another") as other:
        other_port = other.getsockname()[1]
    second = local.target.apply(local.want(1, port=other_port))
    assert second.endpoint == f"http://127.0.0.1:{other_port}"
    assert version_at(second.endpoint) == "1"
    with pytest.raises(requests.ConnectionError):
        requests.get(str(first.endpoint), timeout=5)
    assert local.target.apply(local.want(2)).endpoint == second.endpoint, "without a wish the port stays"


def test_a_port_in_use_is_an_error_that_says_what_to_do(local: Any) -> None:
    before = local.target.apply(local.want(1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is in use by another program; give stages.dev.port"):
            local.target.apply(local.want(2, port=port))
    assert local.target.observe("diabetes-dev") == before
    assert version_at(before.endpoint) == "1"


def test_two_services_do_not_share_a_port(local: Any, free_port: int) -> None:
    local.target.apply(local.want(1, port=free_port))
    with pytest.raises(ConfigError, match=f"port {free_port} is in use"):
        local.target.apply(local.want(1, stage="prod", port=free_port))
    assert local.target.observe("diabetes-prod").revisions == ()


def test_traffic_is_shared_by_weight(local: Any) -> None:
    local.target.apply(local.want(1))
    both = local.target.apply(local.want(2, weight=0.1))
    assert {one.label: one.weight for one in both.revisions} == {"diabetes:1": 0.9, "diabetes:2": 0.1}
    assert Counter(version_at(both.endpoint) for _ in range(50)) == {"1": 45, "2": 5}
    names = {one.label: one.name for one in both.revisions}
    standby = local.target.route("diabetes-dev", {names["diabetes:1"]: 1, names["diabetes:2"]: 0})
    assert {one.health for one in standby.revisions} == {"ready"}
    assert {version_at(both.endpoint) for _ in range(5)} == {"1"}
    local.target.route("diabetes-dev", {names["diabetes:2"]: 1})
    assert {version_at(both.endpoint) for _ in range(5)} == {"2"}
    local.until(lambda: [one.label for one in local.target.observe("diabetes-dev").revisions] == ["diabetes:2"])


@pytest.mark.parametrize("weights", [{}, {"x": 0.5}, {"x": 1.5, "y": -0.5}])
def test_shares_that_do_not_add_up_are_refused(local: Any, weights: dict[str, float]) -> None:
    with pytest.raises(TargetError, match="shares of traffic add up to 1"):
        local.target.route("diabetes-dev", weights)


def test_a_route_to_nothing_is_refused(local: Any) -> None:
    with pytest.raises(TargetError, match="no service is called 'diabetes-dev' here"):
        local.target.route("diabetes-dev", {"r-1": 1})
    local.target.apply(local.want(1))
    with pytest.raises(TargetError, match="no revision is called 'r-1'; there are: r-"):
        local.target.route("diabetes-dev", {"r-1": 1})


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101])
def test_a_service_cannot_leave_its_folder(local: Any, name: str) -> None:
    for call in (local.target.observe, local.target.logs, local.target.delete):
        with pytest.raises(ConfigError, match="cannot be used on the target local"):
            call(name)


def test_a_service_that_does_not_exist(local: Any) -> None:
    assert local.target.observe("nothing").revisions == ()
    local.target.delete("nothing")
    assert not (local.workspace.state / "keeper.json").exists(), "nobody needed a keeper for that"
    with pytest.raises(TargetError, match="no service is called 'nothing'"):
        local.target.logs("nothing")


def test_delete_leaves_nothing(local: Any) -> None:
    observed = local.target.apply(local.want(1))
    local.target.delete("diabetes-dev")
    assert not local.processes()
    assert not (local.workspace.state / "services" / "diabetes-dev").exists()
    assert local.target.observe("diabetes-dev").revisions == ()
    with pytest.raises(requests.ConnectionError):
        requests.get(str(observed.endpoint), timeout=5)


def test_down_and_up_bring_back_the_same(local: Any) -> None:
    dev = local.target.apply(local.want(1))
    prod = local.target.apply(local.want(2, stage="prod"))
    assert sorted(local.target.down()) == ["diabetes-dev", "diabetes-prod"]
    assert local.target.down() == []
    stopped = local.target.observe("diabetes-dev")
    assert stopped.endpoint == dev.endpoint
    assert [(one.label, one.health) for one in stopped.revisions] == [("diabetes:1", "stopped")]
    assert not (local.workspace.state / "keeper.json").exists(), "looking does not start anything"
    assert sorted(one.service for one in local.target.up()) == ["diabetes-dev", "diabetes-prod"]
    assert (version_at(dev.endpoint), version_at(prod.endpoint)) == ("1", "2")
    assert local.target.up()[0].serving.health == "ready"


def test_after_down_an_apply_starts_its_service_only(local: Any) -> None:
    local.target.apply(local.want(1))
    local.target.apply(local.want(1, stage="prod"))
    local.target.down()
    observed = local.target.apply(local.want(2))
    assert version_at(observed.endpoint) == "2"
    assert local.target.observe("diabetes-prod").serving.health == "stopped"
    assert not local.processes("diabetes-prod")


def test_after_a_restart_of_the_machine_looking_starts_nothing(local: Any) -> None:
    local.target.apply(local.want(1))
    keeper = local.workspace.state / "keeper.json"
    (service,) = local.processes()
    os.kill(local.keeper_pid, signal.SIGKILL)
    service.kill()
    local.until(lambda: not local.processes())
    keeper.write_text(json.dumps({**json.loads(keeper.read_text()), "boot": "the one before"}))
    assert local.target.observe("diabetes-dev").serving.health == "stopped"
    assert not local.processes()
    assert [one.serving.health for one in local.target.up()] == ["ready"]


def test_the_log_is_shown_and_followed_through_updates(local: Any) -> None:
    local.target.apply(local.want(1))
    endpoint = local.target.observe("diabetes-dev").endpoint
    for number in range(5):
        requests.post(f"{endpoint}/say", f"said {number}", timeout=5)
    assert list(local.target.logs("diabetes-dev", lines=2)) == ["said 3", "said 4"]
    followed = local.target.logs("diabetes-dev", lines=1, follow=True)
    assert next(followed) == "said 4"
    requests.post(f"{endpoint}/say", "said 5", timeout=5)
    assert next(followed) == "said 5"
    local.target.apply(local.want(2))
    assert next(followed) == "stand-in 2 listens"
    local.target.delete("diabetes-dev")
    assert list(followed) == []


def test_plan_says_what_local_does_not_do(local: Any) -> None:
    said = local.target.plan(local.want(1, cpu=0.5, memory_mib=300))
    assert any("cpu and memory are not enforced" in one for one in said)
    assert any("not authenticated" in one for one in said)
    assert not any("cpu and memory" in one for one in local.target.plan(local.want(1)))


@pytest.mark.parametrize("name", ["services", "keeper.log", "keeper.lock"])
def test_a_workspace_that_cannot_be_written_is_named(local: Any, name: str) -> None:
    wrong = local.workspace.state / name
    if name == "services":
        wrong.write_text("not a folder")
    else:
        wrong.mkdir()
    with pytest.raises(TargetError, match=f"{wrong}.*; the workspace must be writable and have room"):
        local.target.apply(local.want(1))


def test_without_a_bundle_the_way_out_is_named(local: Any) -> None:
    with pytest.raises(ConfigError, match=r"has no bundle on this machine; run `stageway package` first"):
        LocalTarget(local.workspace).apply(local.want(1))
