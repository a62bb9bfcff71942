"""The database is made once, by whoever comes first, and refused when this version cannot use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, event, inspect, text

from stageway import store as stores
from stageway.errors import StagewayError, StoreError, TryAgainError
from stageway.store import schema
from stageway.store.base import connect, metadata

if TYPE_CHECKING:
    from tests.conftest import Project

OPEN = """
import sys, pathlib
from stageway import store
from stageway.config.workspace import Workspace
print(sys.stdin.readline(), end="")
with store.open(Workspace.open(pathlib.Path(sys.argv[1]))) as opened:
    print(len(opened.runs.all()), "alembic" in sys.modules)
"""


def opener(project: Project) -> subprocess.Popen[str]:
    environ = {**os.environ, **project.environ}
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(project.root)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_processes_that_make_it_at_once_agree(either: Project) -> None:
    processes = [opener(either) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [out.split()[:2] for out in outputs] == [["go", "0"]] * 4, outputs


def test_a_current_database_is_opened_without_alembic(either: Project) -> None:
    either.open().close()
    process = opener(either)
    assert process.communicate("go\n", timeout=120)[0].split() == ["go", "0", "False"]


def test_the_migrations_make_what_the_code_reads(either: Project) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with either.open() as opened, opened.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": metadata})
        assert compare_metadata(context, metadata) == []
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_heads() == [schema.HEAD]


def test_a_database_that_an_earlier_version_made_is_upgraded(either: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "HEAD", "0001")
        with either.open() as opened:
            opened.holds.set("prod", "kept", "ana")
            assert "ix_stage_history_release" not in indexes(opened)
    with either.open() as opened:
        assert "ix_stage_history_release" in indexes(opened)
        hold = opened.holds.get("prod")
        assert hold is not None
        assert hold.reason == "kept"


def indexes(opened: stores.Store) -> set[str | None]:
    return {one["name"] for one in inspect(opened.database.engine).get_indexes("stage_history")}


def test_migrations_are_beside_the_code_in_the_wheel() -> None:
    assert (Path(stores.__file__).parent / "migrations" / "versions").is_dir()


def test_a_database_from_a_newer_version_is_refused_with_the_command_that_helps(either: Project) -> None:
    with either.open() as opened, opened.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(StoreError, match=r"newer Stageway .*'9999'.*; run `pip install --upgrade stageway`"):
        either.open()
    with pytest.raises(StoreError):
        either.open()


def test_a_process_killed_while_it_migrates_leaves_nothing_half_made(project: Project) -> None:
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys, pathlib\n"
            "from sqlalchemy import Engine, event\n"
            "from stageway import store\n"
            "from stageway.config.workspace import Workspace\n"
            "seen = []\n"
            "def count(*args):\n"
            "    seen.append(args[2])\n"
            "    if sum('CREATE TABLE' in one for one in seen) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
            "event.listen(Engine, 'before_cursor_execute', count)\n"
            "store.open(Workspace.open(pathlib.Path(sys.argv[1])))\n",
            str(project.root),
        ],
        timeout=120,
    )
    assert killed.returncode == -9
    with project.open() as opened:
        assert opened.runs.all() == []


def test_sqlite_keeps_what_was_committed(project: Project) -> None:
    with project.open() as opened, opened.read() as connection:
        settings = {
            name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "synchronous")
        }
    assert settings == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}


def test_a_read_only_database_is_said_in_one_line(project: Project) -> None:
    project.open().close()
    path = project.workspace.state / "state.db"
    read_only = connect(f"sqlite:///file:{path}?mode=ro&uri=true", project.root, "w")
    with pytest.raises(StoreError, match=r"state\.db: cannot be written: it is read-only; make the file"):
        stores.Store(read_only).holds.set("dev", "why", "me")
    read_only.close()


READ_ONLY = """
import os, pathlib, sys
from stageway.errors import StoreError
from stageway.store import Store, schema
from stageway.store.base import connect
if os.geteuid() == 0:  # root may write everywhere; import what is needed first, as somebody else may not read it
    schema.ensure(connect(sys.argv[2], pathlib.Path("/"), "w"))
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    database = connect(sys.argv[1], pathlib.Path("/"), "w")
    schema.ensure(database)
    Store(database).holds.set("dev", "why", "me")
except StoreError as error:
    print(error.message)
"""


@pytest.mark.parametrize("made", [True, False], ids=["there", "not made yet"])
def test_a_workspace_that_may_not_be_written_is_said_in_one_line(project: Project, made: bool) -> None:
    if made:
        project.open().close()
    else:
        assert project.workspace.state.is_dir()
    folder = Path(tempfile.mkdtemp(prefix="stageway-read-only-", dir="/tmp"))
    try:
        shutil.copytree(project.workspace.state, folder / "state")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        address = f"sqlite:///{folder}/state/state.db"
        command = [sys.executable, "-c", READ_ONLY, address, f"sqlite:///{project.root}/first.db"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(folder)
    assert done.stdout.startswith(f"{folder}/state/state.db"), done.stderr
    assert "writ" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_full_disk_is_said_in_one_line(project: Project) -> None:
    with project.open() as opened:

        @event.listens_for(opened.database.engine, "connect")
        def no_room(raw: object, entry: object) -> None:
            raw.execute("PRAGMA max_page_count=1")  # type: ignore[attr-defined]

        opened.database.engine.dispose()
        with pytest.raises(StoreError, match="the disk is full; make room and run the command again"):
            opened.holds.set("dev", "long" * 10_000, "me")


def test_a_locked_database_says_try_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stageway.store.base.BUSY_SECONDS", 0.05)
    with (
        project.open() as first,
        project.open() as second,
        first.write(),
        pytest.raises(TryAgainError, match="is locked"),
    ):
        second.holds.set("dev", "why", "me")


def test_a_damaged_file_is_said_in_one_line(project: Project) -> None:
    path = project.workspace.state / "state.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"state\.db: is damaged; restore it"):
        project.open()


def test_a_database_server_that_is_away_says_try_again(project: Project) -> None:
    with pytest.raises(TryAgainError, match="does not answer") as caught:
        schema.ensure(connect("postgresql://u:secret@127.0.0.1:1/nowhere", project.root, "w"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://u@h/n", "'mysql' is not supported"),
        ("sqlite://", "keeps nothing"),
        ("no address", "is not a database address"),
    ],
)
def test_an_address_that_cannot_be_used_is_said(project: Project, address: str, said: str) -> None:
    with pytest.raises(StagewayError, match=said):
        connect(address, project.root, "w")


def test_a_database_that_does_not_exist_is_said(project: Project, postgresql_url: str) -> None:
    with pytest.raises(StoreError, match="does not exist; create it first"):
        schema.ensure(connect(postgresql_url.replace("@/t", "@/no"), project.root, "w"))


def test_all_workers_of_a_server_share_its_clock(project: Project, postgresql_url: str) -> None:
    database = connect(postgresql_url, project.root, "w")
    try:
        schema.ensure(database)
        with database.read() as connection:
            theirs = _milliseconds(connection)
        assert abs(database.now() - theirs) < 5_000
    finally:
        database.close()


def test_a_server_that_restarts_is_found_again(project: Project, postgresql_url: str) -> None:
    database = connect(postgresql_url, project.root, "w")
    try:
        schema.ensure(database)
        opened = stores.Store(database)
        opened.holds.set("dev", "before", "me")
        with database.engine.connect() as other:
            pid = other.scalar(text("select pg_backend_pid()"))
            other.execute(text(f"select pg_terminate_backend(pid) from pg_stat_activity where pid <> {pid}"))
        opened.holds.set("dev", "after", "me")
        hold = opened.holds.get("dev")
        assert hold is not None
        assert hold.reason == "after"
    finally:
        database.close()


def _milliseconds(connection: Connection) -> int:
    return int(float(str(connection.scalar(text("select extract(epoch from clock_timestamp()) * 1000")))))
