"""Measure `stageway --help` against a bare typer program, side by side on this machine.

    python bench/cli_startup.py [--runs 20] [--json]

Uses hyperfine where it is installed, else a loop of its own. The goal is a ratio of at most 1.5.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL = 1.5

BARE = '''\
import typer

app = typer.Typer()


@app.command()
def hello(name: str = "world") -> None:
    """Say hello."""
    typer.echo(f"hello {name}")


@app.command()
def bye(name: str = "world") -> None:
    """Say goodbye."""
    typer.echo(f"bye {name}")


app()
'''


def measure(commands: dict[str, list[str]], runs: int) -> dict[str, float]:
    """Return the median seconds of each command."""
    hyperfine = shutil.which("hyperfine")
    if hyperfine is not None:
        return _with_hyperfine(hyperfine, commands, runs)
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for at in range(runs + 1):
        # One run of each in turn, so that a busy moment of the machine meets both; the first turn fills caches.
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if at:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _with_hyperfine(hyperfine: str, commands: dict[str, list[str]], runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        lines = [subprocess.list2cmdline(command) for command in commands.values()]
        options = ["--shell=none", "--warmup=2", f"--runs={runs}", f"--export-json={report}", "--style=none"]
        subprocess.run([hyperfine, *options, *lines], check=True, stdout=subprocess.DEVNULL)
        results = json.loads(report.read_text())["results"]
    return {name: result["median"] for name, result in zip(commands, results, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        script = Path(sys.executable).with_name("stageway")
        found = measure(
            {
                "bare typer --help": [sys.executable, str(bare), "--help"],
                "stageway --help": [str(script), "--help"],
            },
            wanted.runs,
        )
    ratio = found["stageway --help"] / found["bare typer --help"]
    if wanted.json:
        print(json.dumps({"median_seconds": found, "ratio": ratio, "goal": GOAL, "runs": wanted.runs}, indent=2))
        return
    for name, median in found.items():
        print(f"{name:<20} {median * 1000:7.1f} ms (median of {wanted.runs})")
    print(f"{'ratio':<20} {ratio:7.2f}    (goal: at most {GOAL})")


if __name__ == "__main__":
    main()
