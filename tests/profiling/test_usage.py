"""Memory and processor time of a real process tree."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from stageway.profiling.usage import Usage

TREE = """
import subprocess, sys
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, sys.argv[0], "child"], stdin=subprocess.PIPE)
    for line in sys.stdin:
        child.stdin.write(line.encode())
        child.stdin.flush()
else:
    held = []
    for line in sys.stdin:
        word, number = line.split()
        if word == "hold":
            held.append(b"x" * (int(number) * 2**20))
        else:
            sum(range(int(number)))
        print("done", flush=True)
"""


class Tree:
    """A parent and a child that does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    script = tmp_path_factory.mktemp("tree") / "tree.py"
    script.write_text(TREE)
    command = [sys.executable, str(script), "parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        made = Tree(process)
        made.tell("work 1")
        yield made
        process.kill()


def test_memory_of_children_counts_and_the_peak_stays(tree: Tree) -> None:
    usage = Usage(tree.process.pid)
    before = usage.memory_mib()
    with usage.watching():
        tree.tell("hold 64")
    assert before + 60 < usage.peak_mib < before + 160
    tree.process.kill()
    tree.process.wait()
    assert usage.memory_mib() == 0.0
    assert usage.peak_mib > before + 60


def test_processor_time_of_children_counts_and_never_goes_back(tree: Tree) -> None:
    usage = Usage(tree.process.pid)
    before = usage.cpu_seconds()
    tree.tell("work 20000000")
    after = usage.cpu_seconds()
    assert after > before
    tree.process.kill()
    tree.process.wait()
    assert usage.cpu_seconds() >= after
