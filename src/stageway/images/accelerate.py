"""A verified ONNX form of a model as a layer of its own, or the reason why there is none.

Converting unpickles the model, so it runs in a process of its own: on the dependency layer that will serve, with the
converters in a layer beside it that no service gets. Whatever goes wrong there, the original serves. The converter's
own answer is kept, good or bad: the same model with the same packages is converted once. What kept it from answering,
such as its time or a full disk, may be gone the next time and is not.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stageway.bundle import ACCELERATED, MODELS, machine
from stageway.errors import PackagingError, TryAgainError
from stageway.facts import digest
from stageway.images import cache as caches
from stageway.images import converted, locked, uv_tool
from stageway.images import lock as locks
from stageway.images.converted import Answer, UnfitError
from stageway.images.layers import LayerStore
from stageway.release import Layer, Model

FRAMEWORKS = ("ScikitLearn", "XGBoost", "LightGBM")
"""What may get an ONNX form."""

CONVERTERS = ("skl2onnx>=1.17", "onnxmltools>=1.12", "onnx>=1.15")
TIMEOUT = 300.0
"""Seconds after which a conversion is given up."""
LEAST_MEMORY = 4 * 2**30
ANSWERS = "accelerations"
TAIL = 2**14
"""Bytes of a converter's log that are looked at."""


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
            told = Answer.model_validate_json(answer.read_bytes())
        except (OSError, ValueError):
            return None
        if told.speed is None:
            return Outcome(None, told.sentence)
        layer = self._store.find(ACCELERATED, made_from)
        return Outcome(layer, told.sentence) if layer is not None else None

    def _convert(self, subject: Subject, tools: Layer, made_from: Any, answer: Path) -> Outcome:
        with caches.scratch(self._store.cache) as place:
            try:
                told = self._run(subject, tools, place)
                layer = None
                if told.speed is not None:
                    layer = self._store.make(
                        ACCELERATED, made_from, lambda content: converted.copy_form(place, content)
                    )
            except UnfitError as error:
                return Outcome(None, error.message)
            except FileNotFoundError:
                return Outcome(None, "the converter left no form beside its answer")
            if not told.passing:
                caches.write(answer, told.model_dump_json(by_alias=True, exclude_none=True))
            return Outcome(layer, told.sentence)

    def _run(self, subject: Subject, tools: Layer, place: Path) -> Answer:
        """Run the converter in *place*; return its answer, or a passing one where it wrote none."""
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
        with (place / "log").open("w+b") as log:
            # The pipe is never written to: when we are gone it closes, and the converter ends.
            process = subprocess.Popen(
                command, cwd=place, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
            try:
                code = process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                return _passing(f"converting took longer than {self._timeout:g} s; `accelerate: off` does not try")
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
            try:
                return converted.read_answer(place)
            except FileNotFoundError:
                return _passing(_ended(log, code))

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


def _passing(reason: str) -> Answer:
    return Answer(reason=reason, passing=True)


def _ended(log: IO[bytes], code: int) -> str:
    """Say how a converter ended that wrote no answer."""
    if code < 0:
        return f"the converter was ended by signal {-code} ({signal.Signals(-code).name})"
    log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
    lines = log.read(TAIL).decode("utf-8", "replace").strip().splitlines()
    return f"the converter ended with exit code {code}: {lines[-1] if lines else 'no word'}"


def _installed(content: Path) -> set[str]:
    """Return the packages of a dependency layer, normalised."""
    names = (path.name.partition("-")[0] for path in content.glob("*.dist-info"))
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def _memory() -> int:
    import psutil

    return max(LEAST_MEMORY, int(psutil.virtual_memory().total) // 2)
