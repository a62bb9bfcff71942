"""Models served without a script: by a real server, and in this process to look at how their work is joined."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stageway.serving import frameworks
from stageway.serving.scorer import Call
from stageway.serving.settings import Settings

MODELS = Path("azureml-models", "m", "1")
Fill = Callable[[Path], Any]


HEAVY = ("test_lightgbm.py", "test_tensorflow.py", "test_torchscript.py", "test_xgboost.py")
"""Files that need a framework of the environment ``frameworks`` to be read at all."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the heavy frameworks' files alone where their tests would not run."""
    return True if "not frameworks" in config.option.markexpr and collection_path.name in HEAVY else None


@pytest.fixture(scope="module")
def serve(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Start a server: ``serve(framework, fill, *arguments)``, where *fill* writes the model into a folder."""

    def begin(framework: str, fill: Fill, *arguments: str, **environment: str) -> Any:
        folder = tmp_path_factory.mktemp("app")
        (folder / MODELS).mkdir(parents=True)
        fill(folder / MODELS)
        where = {"AZUREML_MODEL_DIR": str(MODELS), **environment}
        return start(None, "--framework", framework, *arguments, folder=folder, environment=where)

    return begin


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a scorer in this process: ``load(framework, fill, **settings)``."""

    def loaded(framework: str, fill: Fill, **settings: Any) -> Any:
        fill(tmp_path)
        monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
        return frameworks.load(Settings(framework=framework, **settings))

    return loaded


@pytest.fixture
def work() -> Callable[[Any, Any], Any]:
    """Understand a body: ``work(scorer, body)``."""
    return lambda scorer, body: scorer.read(
        Call("POST", "/score", json.dumps(body).encode(), "", "application/json", dict)
    )


@pytest.fixture
def scored(work: Any) -> Callable[..., list[Any]]:
    """Answer bodies one by one, and joined: ``scored(scorer, bodies, joined=True)``, on a thread of its own."""

    def answers(scorer: Any, bodies: list[Any], *, joined: bool = False) -> list[Any]:
        works = [work(scorer, body) for body in bodies]
        if not joined:
            results = [scorer.run(one.data) for one in works]
        else:
            assert len({one.key for one in works}) == 1
            assert works[0].key is not None
            results = scorer.split(scorer.run(scorer.join([one.data for one in works])), [one.rows for one in works])
        return [json.loads(one.write(result).body) for one, result in zip(works, results, strict=True)]

    def alone(*given: Any, **more: Any) -> list[Any]:
        # Settings of libraries belong to a thread; those of the tests' own stay as they are.
        found: list[Any] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                found.extend(answers(*given, **more))
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return found

    return alone


@pytest.fixture(scope="session")
def at_once() -> Callable[[Any, list[Any]], list[Any]]:
    """Send bodies over many connections at the same time: ``at_once(service, bodies)`` gives replies in their order."""

    def send(service: Any, bodies: list[Any]) -> list[Any]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(service.score, bodies))

    return send
