"""A verified ONNX form of a model as a layer of its own, or the reason why there is none.

Converting unpickles the model, so it runs in a process of its own: on the dependency layer that will serve, with the
converters in a layer beside it that no service gets. Whatever goes wrong there, the original serves. Both answers are
kept: the same model with the same packages is converted once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageway.bundle import ACCELERATED, MODELS, machine
from stageway.errors import PackagingError, TryAgainError
from stageway.facts import digest
from stageway.images import cache as caches
from stageway.images import lock as locks
from stageway.images import locked, uv_tool
from stageway.images.layers import LayerStore
from stageway.release import Layer, Model

FRAMEWORKS = ("ScikitLearn", "XGBoost", "LightGBM")
"""What may get an ONNX form."""

CONVERTERS = ("skl2onnx>=1.17", "onnxmltools>=1.12", "onnx>=1.15")
TIMEOUT = 300.0
"""Seconds after which a conversion is given up."""
LEAST_MEMORY = 4 * 2**30
ANSWERS = "accelerations"
LONGEST = 300


@dataclass(frozen=True)
class Subject:
    """What is to be converted: the model and the layers that serve it."""

    model: Model
    framework: str
    content: Layer
    dependencies: Layer
    serving: Layer
    variables: Mapping[str, str]
    bodies: Sequence[bytes] = ()


@dataclass(frozen=True)
class Outcome:
    """*layer* holds the verified form; without one *sentence* says why the original serves."""

    layer: Layer | None
    sentence: str


class Accelerator:
    """Converts models of one cache."""

    def __init__(self, store: LayerStore, lock: locks.Lock, options: list[str], timeout: float = TIMEOUT) -> None:
        self._store, self._lock, self._options, self._timeout = store, lock, options, timeout

    def accelerate(self, subject: Subject) -> Outcome:
        """Return the verified form of the *subject*, made unless it is there."""
        if "onnxruntime" not in _installed(self._store.content(subject.dependencies)):
            return Outcome(None, f"{self._lock.path.name} has no onnxruntime for {machine.platform_name()}")
        try:
            tools = self._tools(subject.dependencies)
        except (PackagingError, TryAgainError) as error:
            return Outcome(None, error.message)
        made_from = {
            "model": subject.model.digest,
            "framework": subject.framework,
            "dependencies": subject.dependencies.digest,
            "serving": subject.serving.digest,
            "converters": tools.digest,
            "variables": dict(subject.variables),
            "samples": digest([body.hex() for body in subject.bodies]),
        }
        name = digest(made_from).removeprefix("sha256:")
        cache = self._store.cache
        with caches.complaints(cache), caches.exclusive(cache, f"{ACCELERATED}-{name}"):
            answer = cache / ANSWERS / name
            known = self._known(made_from, answer)
            return known if known is not None else self._convert(subject, tools, made_from, answer)

    def _known(self, made_from: Any, answer: Path) -> Outcome | None:
        try:
            told = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        layer = self._store.find(ACCELERATED, made_from)
        if "reason" in told:
            return Outcome(None, told["reason"])
        return Outcome(layer, _speed(told)) if layer is not None else None

    def _convert(self, subject: Subject, tools: Layer, made_from: Any, answer: Path) -> Outcome:
        with caches.scratch(self._store.cache) as place:
            told, keep = self._run(subject, tools, place)
            if "reason" in told:
                if keep:
                    caches.write(answer, json.dumps(told))
                return Outcome(None, told["reason"])

            def fill(content: Path) -> None:
                for path in sorted((place / "form").iterdir()):
                    shutil.copyfile(path, content / path.name)

            layer = self._store.make(ACCELERATED, made_from, fill)
            caches.write(answer, json.dumps(told))
            return Outcome(layer, _speed(told))

    def _run(self, subject: Subject, tools: Layer, place: Path) -> tuple[dict[str, Any], bool]:
        """Run the converter in *place*; return its answer, and whether it would be the same another time."""
        samples = place / "samples"
        samples.mkdir()
        for number, body in enumerate(subject.bodies):
            (samples / f"{number:04d}.json").write_bytes(body)
        content = self._store.content
        env = machine.environment() | dict(subject.variables)
        env |= {
            "PYTHONPATH": str(content(subject.serving)),
            "PYTHONPYCACHEPREFIX": str(self._store.cache / "pyc" / subject.dependencies.digest.removeprefix("sha256:")),
            "STAGEWAY_SITE": f"{content(subject.dependencies)}{os.pathsep}{content(tools)}",
            "AZUREML_MODEL_DIR": str(
                content(subject.content) / MODELS / subject.model.id.name / subject.model.id.version
            ),
        }
        command = [machine.interpreter(), "-S", "-s", "-P", "-m", "stageway.serving.convert"]
        command += ["--framework", subject.framework, "--samples", str(samples), "--into", str(place)]
        command += ["--memory", str(_memory())]
        with (place / "log").open("wb") as log:
            # The pipe is never written to: when we are gone it closes, and the converter ends.
            process = subprocess.Popen(
                command, cwd=place, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
            try:
                code = process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                return {"reason": f"converting took longer than {self._timeout:g} s"}, True
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
        return _answer(place, code), code >= 0

    def _tools(self, dependencies: Layer) -> Layer:
        """Return the layer with the converters: only what the dependency layer lacks, so that nothing is replaced."""
        made_from = {"converters": list(CONVERTERS), "dependencies": dependencies.digest}
        there = _installed(self._store.content(dependencies))

        def fill(content: Path) -> None:
            with caches.scratch(self._store.cache) as place:
                wanted, constraints = place / "wanted.txt", place / "constraints.txt"
                constraints.write_text("\n".join(self._lock.pins) + "\n", encoding="utf-8")
                uv_tool.run(
                    [
                        *("pip", "compile", "-", "--constraints", str(constraints), "--output-file", str(wanted)),
                        *("--generate-hashes", "--no-header", "--no-annotate", "--only-binary=:all:"),
                        f"--python={machine.interpreter()}",
                    ],
                    cwd=place,
                    stdin="\n".join([*self._options, *CONVERTERS]) + "\n",
                    failing="the converters to ONNX do not fit with the lock",
                )
                found = locks.Lock(wanted, wanted.read_text(encoding="utf-8"))
                for name in found.names & there:
                    found = found.without(name)
                locked.install(found, self._options, content, self._store.cache, "the converters to ONNX")

        with caches.complaints(self._store.cache):
            return self._store.make("converters", made_from, fill)


def _answer(place: Path, code: int) -> dict[str, Any]:
    """Read what the converter wrote; where it wrote nothing, how it ended is the reason."""
    try:
        told = json.loads((place / "answer.json").read_text(encoding="utf-8"))
        if "reason" in told:
            return {"reason": " ".join(str(told["reason"]).split())[:LONGEST]}
        if all((place / "form" / name).is_file() for name in ("model.onnx", "report.json")):
            return {"speed": told["speed"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if code < 0:
        return {"reason": f"the converter was ended by signal {-code} ({signal.Signals(-code).name})"}
    lines = (place / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return {"reason": f"the converter ended with exit code {code}: {lines[-1][:LONGEST] if lines else 'no word'}"}


def _speed(told: Mapping[str, Any]) -> str:
    one = told["speed"]["1"]
    return f"one row in {one['accelerated_us']:.0f} µs, the original takes {one['original_us']:.0f} µs"


def _installed(content: Path) -> set[str]:
    """Return the packages of a dependency layer, normalised."""
    names = (path.name.partition("-")[0] for path in content.glob("*.dist-info"))
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def _memory() -> int:
    import psutil

    return max(LEAST_MEMORY, int(psutil.virtual_memory().total) // 2)
