"""Models served without a script get a verified ONNX form where one agrees; otherwise the original serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stageway import images, output
from stageway.bundle import Bundle, trial
from stageway.images import accelerate
from stageway.release import Model

pytestmark = pytest.mark.slow

TRAIN = """\
import json
import sys

import joblib
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.neighbors import KNeighborsClassifier

rows, target = load_diabetes(return_X_y=True)
flowers = load_iris()
names = flowers.target_names[flowers.target]
models = {
    "forest": (RandomForestRegressor(20, random_state=0).fit(rows, target), rows),
    "hurried": (RandomForestRegressor(20, random_state=1).fit(rows, target), rows),
    "names": (RandomForestClassifier(20, random_state=0).fit(flowers.data, names), flowers.data),
    "neighbours": (KNeighborsClassifier(5).fit(flowers.data, names), flowers.data),
}
for name, (model, given) in models.items():
    joblib.dump(model, name + ".joblib")
    methods = ["predict", "predict_proba"] if hasattr(model, "predict_proba") else ["predict"]
    replies = {method: getattr(model, method)(given[:40]).tolist() for method in methods}
    with open(name + ".json", "w") as file:
        json.dump({"data": given[:40].tolist(), "replies": replies}, file)
"""


@pytest.fixture
def trained(times: Any) -> Any:
    """A project without an entry script after its training ran with the packages that will serve."""
    times.write("requirements.txt", "scikit-learn>=1.7\njoblib\n")
    times.write("train.py", TRAIN)
    times.serve(dependencies="requirements.txt")
    place = images.environment(times.workspace())
    subprocess.run([*place.argv, "train.py"], cwd=times.root, env={**os.environ, **place.env}, check=True)
    return times


@pytest.fixture
def notes() -> Any:
    heard: list[str] = []
    with output.notes_to(heard.append):
        yield heard


def register(trained: Any, name: str) -> Model:
    model: Model = trained.shelf.add(files={"model.joblib": name}, framework="ScikitLearn")
    target: Path = trained.shelf.root / "times" / model.id.version / "model.joblib"
    target.write_bytes((trained.root / f"{name}.joblib").read_bytes())
    return model


def build(trained: Any, model: Model) -> Bundle:
    return images.build(trained.workspace(), model, trained.shelf)


def expected(trained: Any, name: str) -> Any:
    return json.loads((trained.root / f"{name}.json").read_text())


def test_the_accelerated_service_answers_as_training_did(trained: Any, notes: list[str]) -> None:
    bundle = build(trained, register(trained, "names"))
    assert bundle.manifest.accelerated
    assert any(note.startswith("accelerated: one row in ") for note in notes)
    known = expected(trained, "names")
    with trial.serve(bundle) as service:
        for method, reply in known["replies"].items():
            body = json.dumps({"data": known["data"], "method": method}).encode()
            answered = service.request("POST", "/score", body)
            assert answered.status == 200, answered.body
            if method == "predict":
                assert answered.json() == {"predict": reply}
            else:
                assert np.abs(np.array(answered.json()[method]) - reply).max() <= 1e-5
        refused = service.request("POST", "/score", b'{"data": [[1, 2, 3, "four"]]}')
        assert refused.status == 400


def test_the_report_says_what_was_compared(trained: Any) -> None:
    bundle = build(trained, register(trained, "forest"))
    report = json.loads((bundle.content("accelerated") / "report.json").read_text())
    assert report["compared"]["predict"]["rows"] >= 2000
    assert report["compared"]["predict"]["largest_difference"] <= report["tolerance"]
    assert report["generated"]["thresholds"] > 0
    assert report["versions"]["skl2onnx"]


def test_two_caches_give_the_same_accelerated_layer(trained: Any, tmp_path: Path) -> None:
    model = register(trained, "forest")
    one = build(trained, model)
    other = images.build(trained.workspace(tmp_path / "other"), model, trained.shelf)
    assert one.digest == other.digest


def test_a_model_whose_form_disagrees_is_served_as_it_is_and_tried_once(
    trained: Any, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = register(trained, "neighbours")
    bundle = build(trained, model)
    said = [note for note in notes if note.startswith("not accelerated, the original serves: ")]
    assert len(said) == 1
    assert not bundle.manifest.accelerated
    monkeypatch.setattr(accelerate.Accelerator, "_run", None)
    assert build(trained, model) == bundle
    assert [note for note in notes if note.startswith("not accelerated")] == said * 2


def subject(trained: Any, name: str) -> accelerate.Subject:
    """Return a model and the layers that serve it, as packaging has them."""
    trained.write("requirements.txt", "scikit-learn>=1.7\njoblib\nonnxruntime\n")
    trained.serve(dependencies="requirements.txt", accelerate="off")
    model = register(trained, name)
    layers = {layer.kind: layer for layer in build(trained, model).manifest.layers}
    return accelerate.Subject(
        model=model,
        framework="ScikitLearn",
        content=layers["model"],
        dependencies=layers["dependencies"],
        serving=layers["serving"],
        variables={},
    )


def accelerator(trained: Any, **options: Any) -> accelerate.Accelerator:
    lock = images.lock.read(trained.root / "stageway.lock")
    assert lock is not None
    found = images.lock.index_options(trained.workspace())
    return accelerate.Accelerator(images.layers.LayerStore(trained.cache), lock, found, **options)


def test_a_conversion_that_had_no_time_is_tried_again(trained: Any) -> None:
    given = subject(trained, "hurried")
    outcome = accelerator(trained, timeout=0.0).accelerate(given)
    assert outcome.layer is None
    assert outcome.sentence == "converting took longer than 0 s; `accelerate: off` does not try"
    assert accelerator(trained).accelerate(given).layer is not None


def test_a_model_that_makes_the_answer_up_gets_no_other_file_into_the_release(trained: Any) -> None:
    code = (
        "import json, os, pathlib, sys\n"
        "into = pathlib.Path(sys.argv[sys.argv.index('--into') + 1])\n"
        "(into / 'form').mkdir()\n"
        "(into / 'form' / 'model.onnx').symlink_to('/etc/hostname')\n"
        "(into / 'form' / 'report.json').write_text('{}')\n"
        "times = {'original_us': 9.0, 'accelerated_us': 1.0}\n"
        "(into / 'answer.json').write_text(json.dumps({'speed': {'1': times, '64': times}}))\n"
        "os._exit(0)\n"
    )
    script = f"class Evil:\n    def __reduce__(self):\n        return exec, ({code!r},)\n"
    (trained.root / "evil.py").write_text(script + "import joblib\njoblib.dump(Evil(), 'evil.joblib')\n")
    place = images.environment(trained.workspace())
    subprocess.run([*place.argv, "evil.py"], cwd=trained.root, env={**os.environ, **place.env}, check=True)
    outcome = accelerator(trained).accelerate(subject(trained, "evil"))
    assert outcome.layer is None
    assert outcome.sentence.startswith("the converter left report.json that is none")


def test_off_is_off(trained: Any, notes: list[str]) -> None:
    trained.serve(dependencies="requirements.txt", accelerate="off")
    assert not build(trained, register(trained, "forest")).manifest.accelerated
    assert not [note for note in notes if "accelerated" in note]


def converters(cache: Path) -> list[int]:
    """Return the processes that convert for *cache*."""
    found = subprocess.run(["pgrep", "-f", f"serving.convert.*{cache}"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def test_a_converter_that_is_killed_leaves_nothing_and_is_tried_again(
    trained: Any, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Thread

    model = register(trained, "forest")
    trained.write("samples/other.json", json.dumps({"data": [[0.25] * 10]}))
    trained.serve(dependencies="requirements.txt", samples="samples")
    cache = trained.workspace().cache
    before = {path.name for path in (cache / "layers").iterdir()}
    built: list[Bundle] = []

    def work() -> None:
        with output.notes_to(notes.append):
            built.append(build(trained, model))

    thread = Thread(target=work)
    thread.start()
    until(lambda: converters(cache))
    for pid in converters(cache):
        os.kill(pid, signal.SIGKILL)
    thread.join(120)
    assert not built[0].manifest.accelerated
    assert any("the converter was ended by signal 9 (SIGKILL)" in note for note in notes)
    assert not list((cache / "scratch").glob("*/form"))
    kinds = {layer.digest.removeprefix("sha256:") for layer in built[0].manifest.layers}
    left = {path.name for path in (cache / "layers").iterdir()} - before - kinds
    assert not [name for name in left if (cache / "layers" / name / "content" / "model.onnx").exists()]
    assert build(trained, model).manifest.accelerated


def test_a_converter_ends_with_its_caller(trained: Any, tmp_path: Path) -> None:
    bundle = build(trained, register(trained, "forest"))
    command, env = bundle.python_command()
    (tmp_path / "samples").mkdir()
    model = bundle.content("model") / bundle.manifest.models[0].path
    arguments = ["--framework", "ScikitLearn", "--samples", str(tmp_path / "samples"), "--into", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "-m", "stageway.serving.convert", *arguments],
        env={**env, "AZUREML_MODEL_DIR": str(model)},
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 3
    assert not (tmp_path / "answer.json").exists()


def test_a_lock_that_has_no_onnxruntime_is_said(trained: Any, notes: list[str]) -> None:
    trained.serve(dependencies="requirements.txt", accelerate="off")
    bundle = build(trained, register(trained, "forest"))
    store = images.layers.LayerStore(trained.cache)
    lock = images.lock.read(trained.root / "stageway.lock")
    assert lock is not None
    layers = {layer.kind: layer for layer in bundle.manifest.layers}
    subject = accelerate.Subject(
        model=trained.shelf.get("times"),
        framework="ScikitLearn",
        content=layers["model"],
        dependencies=layers["dependencies"],
        serving=layers["serving"],
        variables={},
    )
    outcome = accelerate.Accelerator(store, lock, []).accelerate(subject)
    assert outcome.layer is None
    assert outcome.sentence.startswith("stageway.lock has no onnxruntime for ")
