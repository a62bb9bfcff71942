"""Logs: the last lines, new ones as they come, across cuts and across an update."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from stageway.targets.local import logs


def write(log: Path, *lines: str) -> None:
    with log.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


@pytest.mark.parametrize(("lines", "expected"), [(0, []), (1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_the_last_lines(log: Path, lines: int, expected: list[str]) -> None:
    write(log, "a", "b", "c")
    assert logs.tail(log, lines) == expected


def test_the_last_line_may_be_unfinished_and_of_any_bytes(log: Path) -> None:
    log.write_bytes(b"a\n\xff\xfe b")
    assert logs.tail(log, 1) == ["\ufffd\ufffd b"]


def test_long_lines_come_whole(log: Path) -> None:
    write(log, "x" * 300_000, "y" * 300_000)
    assert [len(line) for line in logs.tail(log, 2)] == [300_000, 300_000]


def test_a_log_that_is_not_there_has_no_lines(log: Path) -> None:
    assert logs.tail(log, 5) == []
    assert not logs.rotate(log)


def test_a_cut_keeps_what_was_there_and_what_comes(log: Path) -> None:
    write(log, "a", "b")
    assert not logs.rotate(log, longest=4)
    assert logs.rotate(log, longest=3)
    write(log, "c")
    assert log.read_text() == "c\n"
    assert logs.tail(log, 2) == ["b", "c"]
    assert logs.tail(log, 9) == ["a", "b", "c"]


def test_who_has_the_file_open_writes_on_at_its_new_end(log: Path) -> None:
    with log.open("ab", buffering=0) as service:
        service.write(b"a\n")
        assert logs.rotate(log, longest=1)
        service.write(b"b\n")
    assert log.read_bytes() == b"b\n"


def test_new_lines_are_followed_across_cuts(log: Path) -> None:
    write(log, "0")
    following = logs.follow(lambda: log, 5)
    assert next(following) == "0"
    for number in range(1, 30):
        write(log, str(number))
        if number % 3 == 0:
            assert logs.rotate(log, longest=1)
            write(log, f"{number} after the cut")
            assert next(following) == str(number)
            assert next(following) == f"{number} after the cut"
        else:
            assert next(following) == str(number)


def test_nothing_is_shown_twice_while_it_is_written_and_cut(log: Path) -> None:
    total, done = 3_000, threading.Event()
    write(log, "start")

    def service() -> None:
        with log.open("ab", buffering=0) as file:
            for number in range(total):
                file.write(f"{number}\n".encode())
                if number % 100 == 0:
                    time.sleep(0.002)
        done.set()

    writing = threading.Thread(target=service)
    writing.start()
    found = []
    for line in logs.follow(lambda: log, 1):
        found.append(line)
        if line == str(total - 1):
            break
    writing.join()
    assert found[0] == "start" or found[0].isdigit()
    numbers = [int(line) for line in found if line != "start"]
    assert numbers == list(range(numbers[0], total))


def test_following_goes_on_with_the_next_log_and_ends_when_there_is_none(tmp_path: Path) -> None:
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    write(old, "old 1")
    write(new, "new 1")
    current: list[Path | None] = [old]
    following = logs.follow(lambda: current[0], 5)
    assert next(following) == "old 1"
    write(old, "old 2")
    current[0] = new
    assert [next(following), next(following)] == ["old 2", "new 1"]
    current[0] = None
    write(new, "new 2")
    assert list(following) == ["new 2"]
