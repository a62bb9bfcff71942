"""Who is measured: what each server needs, how it is started on one worker, and how a request to it looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

APPS = Path(__file__).parent / "apps"
SOURCE = Path(__file__).resolve().parents[2] / "src"

# One scikit-learn for all: a model file is read by the version that wrote it, and predict costs the same.
MODEL = ("scikit-learn==1.7.2", "numpy<3", "joblib")

OURS, WEB, AZML, MLFLOW = "stageway", "fastapi", "azml", "mlflow"
SERVER = ("granian>=2.7,<3", "orjson>=3.10,<4", "prometheus-client", "pyjwt")
ONNX = ("onnxruntime", "skl2onnx", "onnxmltools")
VENVS: dict[str, tuple[str, ...]] = {
    OURS: (*MODEL, *SERVER, *ONNX, "pandas", "uvloop"),
    WEB: (*MODEL, "fastapi", "uvicorn[standard]"),
    AZML: (*MODEL, "azureml-inference-server-http", "pandas"),
    MLFLOW: (*MODEL, "mlflow<3.18"),
    "litserve": (*MODEL, "litserve"),
    # Its parallel workers die with newer event loops, and it asks for pkg_resources.
    "mlserver": (*MODEL, "mlserver", "mlserver-sklearn", "setuptools<81", "uvloop<0.22"),
    "bentoml": (*MODEL, "bentoml"),
}
"""Environment → what is installed into it."""

OVERRIDES = {"bentoml": ("certifi",)}
"""Requirements whose bounds are lifted, since they ask for a version that an index may not have yet."""


@dataclass(frozen=True)
class Place:
    """Where a server finds things: its environment's programs, the model, a scratch folder, its port."""

    bin: Path
    model: Path
    scratch: Path
    port: int

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    @property
    def file(self) -> Path:
        """The joblib file, laid out as v1 has it: ``azureml-models/<name>/1/model.joblib``."""
        return self.model / "azureml-models" / "m" / "1" / "model.joblib"


Rows = list[list[float]]
Form = Callable[[Rows], Any]


def data(rows: Rows) -> Any:
    return {"data": rows}


def inputs(rows: Rows) -> Any:
    return {"inputs": rows}


def tensors(rows: Rows) -> Any:
    flat = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    return {"inputs": [{"name": "predict", "shape": shape, "datatype": "FP64", "data": flat}]}


@dataclass(frozen=True)
class Peer:
    """One server with one worker. *limit* ones have no features: they say what could be reached."""

    name: str
    venv: str
    command: Callable[[Place], list[str]]
    path: str = "/score"
    form: Form = data
    env: Callable[[Place], dict[str, str]] = lambda place: {}
    prepare: Callable[[Place], None] = lambda place: None
    ours: bool = False
    limit: bool = False
    default: bool = True
    models: tuple[str, ...] = ("ridge", "forest")
    note: str = ""
    answers: bool = field(default=True)
    """Whether replies are predictions; only a hello's are not."""


def _ours(*arguments: str) -> Callable[[Place], list[str]]:
    return lambda place: [place.python, "-m", "stageway.serving", "--port", str(place.port), *arguments]


def _our_env(place: Place) -> dict[str, str]:
    root = place.model
    return {
        "PYTHONPATH": str(SOURCE),
        "AML_APP_ROOT": str(root),
        "AZUREML_MODEL_DIR": str(root / "azureml-models" / "m" / "1"),
    }


def _app(module: str) -> Callable[[Place], list[str]]:
    """A bare granian app of ``apps/``."""

    def command(place: Place) -> list[str]:
        granian = [str(place.bin / "granian"), "--interface", "rsgi", "--no-ws", "--log-level", "error"]
        return [*granian, "--host", "127.0.0.1", "--port", str(place.port), f"{module}:app"]

    return command


def _app_env(place: Place) -> dict[str, str]:
    return {"PYTHONPATH": str(APPS), "MODEL": str(place.file)}


def _uvicorn(app: str) -> Callable[[Place], list[str]]:
    return lambda place: [str(place.bin / "uvicorn"), app, "--port", str(place.port), "--log-level", "warning"]


def _azml(place: Place) -> list[str]:
    folder = str(place.file.parent)
    command = [str(place.bin / "azmlinfsrv"), "--entry_script", str(APPS / "score.py"), "--model_dir", folder]
    return [*command, "--port", str(place.port), "--worker_count", "1"]


def _save_mlflow(place: Place) -> None:
    """Write the model in MLflow's own format, with MLflow's own Python."""
    import subprocess

    target = place.scratch / "mlflow"
    if not target.exists():
        code = (
            "import sys, joblib, mlflow.sklearn; "
            "mlflow.sklearn.save_model(joblib.load(sys.argv[1]), sys.argv[2], serialization_format='cloudpickle')"
        )
        subprocess.run([place.python, "-c", code, str(place.file), str(target)], check=True, capture_output=True)


def _mlflow(place: Place) -> list[str]:
    model = str(place.scratch / "mlflow")
    command = [str(place.bin / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local", "-h", "127.0.0.1"]
    return [*command, "-p", str(place.port), "-w", "1"]


def _mlserver(parallel: int, batch: int) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        settings: dict[str, Any] = {"host": "127.0.0.1", "http_port": place.port, "grpc_port": place.port + 1}
        settings |= {"metrics_port": place.port + 2, "parallel_workers": parallel, "debug": False}
        model: dict[str, Any] = {
            "name": "m",
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(place.file)},
        }
        if batch:
            model |= {"max_batch_size": batch, "max_batch_time": 0.01}
        (place.scratch / "settings.json").write_text(json.dumps(settings))
        (place.scratch / "model-settings.json").write_text(json.dumps(model))

    return prepare


def _mlserver_command(place: Place) -> list[str]:
    return [str(place.bin / "mlserver"), "start", str(place.scratch)]


def _bento(place: Place) -> list[str]:
    command = [str(place.bin / "bentoml"), "serve", "bento_app:Service", "--working-dir", str(APPS)]
    return [*command, "--host", "127.0.0.1", "--port", str(place.port)]


def _bento_env(batch: bool) -> Callable[[Place], dict[str, str]]:
    return lambda place: {
        "MODEL": str(place.file),
        "BATCH": "1" if batch else "",
        "BENTOML_HOME": str(place.scratch / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }


def _litserve(batch: bool) -> Callable[[Place], list[str]]:
    return lambda place: [place.python, str(APPS / "lit_app.py"), str(place.port), "64" if batch else "1"]


V2 = "/v2/models/m/infer"
PEERS: tuple[Peer, ...] = (
    Peer("stageway", OURS, _ours("--framework", "ScikitLearn"), env=_our_env, ours=True, note="no script"),
    Peer(
        "stageway-accelerated",
        OURS,
        lambda place: _ours("--framework", "ScikitLearn", "--accelerated", str(place.model / "accelerated"))(place),
        env=_our_env,
        ours=True,
        models=("forest",),
        note="no script, verified ONNX form",
    ),
    Peer(
        "stageway-script",
        OURS,
        lambda place: _ours("--entry-script", str(APPS / "score.py"))(place),
        env=_our_env,
        ours=True,
        note="the entry script that azml serves",
    ),
    Peer("fastapi", WEB, _uvicorn("fastapi_app:app"), env=_app_env, note="uvicorn, def endpoint, pydantic body"),
    Peer("fastapi-async", WEB, _uvicorn("fastapi_app:app"), "/score-async", env=_app_env, note="async def endpoint"),
    Peer("azml", AZML, _azml, note="azureml-inference-server-http"),
    Peer("mlflow", MLFLOW, _mlflow, "/invocations", inputs, prepare=_save_mlflow, note="mlflow models serve"),
    Peer("litserve", "litserve", _litserve(False), "/predict", env=_app_env),
    Peer("litserve-batch", "litserve", _litserve(True), "/predict", env=_app_env, note="at most 64, 5 ms"),
    Peer(
        "mlserver",
        "mlserver",
        _mlserver_command,
        V2,
        tensors,
        prepare=_mlserver(0, 0),
        note="parallel_workers 0, its fastest without batching",
    ),
    Peer(
        "mlserver-batch",
        "mlserver",
        _mlserver_command,
        V2,
        tensors,
        prepare=_mlserver(1, 64),
        note="at most 64, 10 ms",
    ),
    Peer("bentoml", "bentoml", _bento, "/score", env=_bento_env(False)),
    Peer("bentoml-batch", "bentoml", _bento, "/score", env=_bento_env(True), note="adaptive", default=False),
    Peer("granian-thread", OURS, _app("granian_thread"), env=_app_env, limit=True, note="bare, predict in a thread"),
    Peer("granian-batch", OURS, _app("granian_batch"), env=_app_env, limit=True, note="bare, what waits is joined"),
    Peer("hello", OURS, _app("hello"), env=_app_env, limit=True, answers=False, models=("ridge",), note="no predict"),
)
NAMED = {peer.name: peer for peer in PEERS}
