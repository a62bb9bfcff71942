"""A short form of the soak: clients do everything, well and badly, and the memory of every worker stays flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "bench" / "serving" / "soak.py"


@pytest.mark.slow
def test_memory_stays_flat_and_every_good_request_gets_its_answer() -> None:
    done = subprocess.run(
        [sys.executable, SOAK, "--requests", "1500", "--workers", "1", "--no-collect", "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert {one["service"] for one in found["lines"]} == {"script", "model"}
    assert all(one["flat"] for one in found["lines"]), found["lines"]
    assert done.returncode == 0
