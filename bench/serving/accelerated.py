"""Make the forest's verified ONNX form for the bench, with the converter that packaging uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.serving.models import Trained
from bench.serving.peers import SOURCE

SECONDS = 300


def make(bin: Path, trained: Trained) -> str:
    """Write ``accelerated/`` into the model's folder; return why it was not possible, or nothing."""
    target = trained.folder / "accelerated"
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        samples, into = Path(scratch) / "samples", Path(scratch) / "into"
        samples.mkdir()
        into.mkdir()
        (samples / "rows.json").write_text(json.dumps({"data": trained.rows[:20]}))
        command = [str(bin / "python"), "-m", "stageway.serving.convert", "--framework", "ScikitLearn"]
        said = _run([*command, "--samples", str(samples), "--into", str(into)], trained)
        answer = into / "answer.json"
        if not answer.is_file():
            return f"cannot be made: {said}"
        found = json.loads(answer.read_text())
        if "reason" in found:
            return f"cannot be made: {found['reason']}"
        shutil.copytree(into / "form", target)
    return ""


def _run(command: list[str], trained: Trained) -> str:
    """Run *command* with its input held open, since it ends when that is closed; return its last lines."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCE),
        "AZUREML_MODEL_DIR": str(trained.folder / "azureml-models" / "m" / "1"),
    }
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=trained.folder, env=environ, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
        )
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        log.seek(0)
        return " | ".join(log.read().strip().splitlines()[-3:])[-300:]
