"""A workspace on a disk that is full: one line for each command, nothing half-done, and the same command afterwards."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Home

pytestmark = pytest.mark.slow

FILE = "model: diabetes\nserve: {entry-script: score.py}\nprofile: {budget: 1s}\nstages: {dev: {}}\n"
SCRIPT = "import json\n\n\ndef run(data):\n    return len(json.loads(data)['data'])\n"


def ask(endpoint: str) -> bytes:
    address = urlsplit(endpoint)
    with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)) as connection:
        connection.request("POST", "/score", b'{"data": [1, 2, 3]}')
        return connection.getresponse().read()


def test_a_full_disk_is_one_line_and_the_service_goes_on(
    home: Home, make_disk: Callable[[str], Path], shared_cache: Path
) -> None:
    disk = make_disk("24m")
    (disk / "stageway.yml").write_text(FILE)
    (disk / "score.py").write_text(SCRIPT)
    for name in ("first.bin", "second.bin"):
        (disk / name).write_bytes(os.urandom(3_000_000))

    def stageway(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**home.environment, "CI": "", "STAGEWAY_CACHE": str(shared_cache)}
        return subprocess.run(
            ["stageway", *arguments], cwd=disk, env=environ, capture_output=True, text=True, timeout=120
        )

    try:
        for words in (("register", "first.bin"), ("run", "diabetes:1")):
            done = stageway(*words)
            assert done.returncode == 0, done.stderr
        endpoint = json.loads(stageway("status", "--json").stdout)["board"][0]["endpoint"]
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass  # now it is full
        for words in (("register", "second.bin"), ("run", "diabetes:1"), ("watch", "--once"), ("explain", "diabetes")):
            done = stageway(*words)
            assert done.returncode == 2, (words, done.stdout, done.stderr)
            (line,) = [row for row in done.stderr.splitlines() if row.startswith("error: ")]
            assert "disk" in line
            assert str(disk) in line
            assert "Traceback" not in done.stderr
        assert ask(endpoint) == b"3"
        (disk / "filler").unlink()
        assert [one["id"]["version"] for one in json.loads(stageway("model", "list", "--json").stdout)] == ["1"]
        for words in (("register", "second.bin"), ("run", "diabetes:2")):
            done = stageway(*words)
            assert done.returncode == 0, done.stderr
        assert ask(endpoint) == b"3"
    finally:
        stageway("down")
