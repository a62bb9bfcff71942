"""The control file: one writer a slot, whatever happens to its process."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from stageway.errors import ConfigError
from stageway.serving.control import ControlFile


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlFile]:
    with contextlib.closing(ControlFile.create(tmp_path / "control", workers=3)) as control:
        yield control


def test_the_layout_is_as_written_down(control: ControlFile, tmp_path: Path) -> None:
    assert control.claim() == 0
    control.begin()
    control.begin()
    control.end()
    control.draining = True
    control.wanted, control.serving = 3, 2
    content = (tmp_path / "control").read_bytes()
    # Twice as many slots as workers, and two: old and new ones may be there at the same time.
    assert len(content) == 64 + 8 * 16
    assert content[:8] == b"\x01\x00\x00\x00\x03\x00\x02\x00"
    assert struct.unpack_from("<6Q", content, 64) == (1, 2, 0, 0, 0, 0)


def test_both_sides_see_the_flags_and_the_sums(control: ControlFile, tmp_path: Path) -> None:
    with contextlib.closing(ControlFile.open(tmp_path / "control")) as other:
        assert (other.draining, other.ready, other.slots) == (False, False, 8)
        control.draining = control.ready = True
        assert (other.draining, other.ready) == (True, True)
        control.draining = control.ready = False
        assert (other.draining, other.ready) == (False, False)
        control.claim()
        control.begin()
        assert (other.in_flight(), other.total()) == (1, 1)
        control.end()
        assert (other.in_flight(), other.total()) == (0, 1)


WORKER = """
import signal, sys
from stageway.serving.control import ControlFile
control = ControlFile.open(sys.argv[1])
slot = control.claim()
for _ in range(int(sys.argv[2])):
    control.begin()
print(slot, flush=True)
signal.pause()
"""


@contextlib.contextmanager
def worker(path: Path, busy: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(busy)], stdout=PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def slot_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_each_process_has_its_own_slot_and_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_bytes(bytes(64 + 3 * 16))
    with contextlib.closing(ControlFile.open(path)) as control:
        take_over(control, path)


def take_over(control: ControlFile, path: Path) -> None:
    with worker(path, 5) as first, worker(path, 5) as second, worker(path, 5) as third:
        slots = [slot_of(process) for process in (first, second, third)]
        assert sorted(slots) == [0, 1, 2]
        assert (control.in_flight(), control.total()) == (15, 15)
        with pytest.raises(ConfigError, match="all 3 worker slots are taken"):
            control.claim()
        second.kill()
        second.wait()
        with worker(path, 2) as heir:
            assert slot_of(heir) == slots[1]
            # What the dead one had in flight is gone, what it had counted stays.
            assert (control.in_flight(), control.total()) == (12, 17)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control"
    for content in (b"", b"x" * 64, b"x" * 90):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not a control file"):
            ControlFile.open(path)
    with pytest.raises(FileNotFoundError):
        ControlFile.open(tmp_path / "nowhere")
