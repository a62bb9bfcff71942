"""The entry scripts that v1's own guide printed, served as they are; what each needs beside that is written here.

They are kept word for word in ``scripts/`` (as text, since they are not ours to format).
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

SCRIPTS = Path(__file__).parent / "scripts"
FIXES = {
    # It calls os.path.join without importing os.
    "seed_pandas": ("import json\n", "import json\nimport os\n"),
    # It takes the request, and lacks the decorator that asks for it.
    "seed_cors": (
        "def run(request):",
        "from azureml.contrib.services.aml_request import rawhttp\n\n@rawhttp\ndef run(request):",
    ),
}
TEN = [[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]]
RECORDS = [{"input_name_1": 5.1, "input_name_2": "value2", "input_name_3": 3}]


def _script(name: str, fixed: bool = True) -> str:
    text = (SCRIPTS / f"{name}.py.txt").read_text()
    before, after = FIXES.get(name, ("", ""))
    assert before in text
    return text.replace(before, after, 1) if fixed and before else text


@pytest.fixture(scope="module")
def without_schema(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of packages like this environment's, but for inference_schema."""
    folder = tmp_path_factory.mktemp("site")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("inference_schema") and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return str(folder)


def _served(start: Any, tmp_path: Path, name: str, model: Any, file: str, site: str | None = None) -> Any:
    place = tmp_path / "azureml-models" / "sklearn_mnist" / "1"
    place.mkdir(parents=True)
    joblib.dump(model, place / file)
    environment = {"AZUREML_MODEL_DIR": "azureml-models/sklearn_mnist/1"}
    if site is not None:
        environment["STAGEWAY_SITE"] = site
    return start(_script(name), folder=tmp_path, environment=environment).ready()


@pytest.mark.parametrize("package", ["installed", "absent"])
def test_the_numpy_script_is_served_word_for_word(
    start: Any, tmp_path: Path, without_schema: str, package: str
) -> None:
    rows = np.arange(50.0).reshape(5, 10)
    model = Ridge().fit(rows, rows.sum(axis=1))
    site = without_schema if package == "absent" else None
    service = _served(start, tmp_path, "seed_numpy", model, "sklearn_mnist_model.pkl", site)
    reply = service.score({"data": TEN * 2})
    assert (reply.status, reply.json) == (200, pytest.approx(model.predict(np.array(TEN * 2)).tolist()))
    assert service.score({"data": [[1, 2]]}).status == 400
    definitions = service.ask("GET", "/swagger.json").json["definitions"]
    integers = {"type": "array", "items": {"type": "array", "items": {"type": "integer", "format": "int64"}}}
    assert definitions["ServiceInput"]["properties"]["data"].items() >= integers.items()
    assert definitions["ServiceInput"]["example"] == {"data": TEN}
    assert definitions["ServiceOutput"]["example"] == [3726.995]


@pytest.mark.parametrize("package", ["installed", "absent"])
def test_the_pandas_script_is_served_with_its_missing_import(
    start: Any, tmp_path: Path, without_schema: str, package: str
) -> None:
    table = pd.DataFrame({"input_name_1": [1.0, 2, 3], "input_name_2": ["a", "value2", "a"], "input_name_3": [1, 2, 3]})
    encoded = make_column_transformer((OneHotEncoder(), ["input_name_2"]), remainder="passthrough")
    model = make_pipeline(encoded, LinearRegression()).fit(table, [1.0, 2, 3])
    site = without_schema if package == "absent" else None
    service = _served(start, tmp_path, "seed_pandas", model, "model_file.pkl", site)
    expected = pytest.approx(model.predict(pd.DataFrame(RECORDS)).tolist())
    assert service.score({"data": RECORDS}).json == expected
    # Power BI sends the records alone.
    assert service.score(RECORDS).json == expected
    assert service.score([["1", 2, 3]]).status == 400
    assert sum("azureml.train.automl is not installed" in line for line in service.lines) == 1


def test_the_pandas_script_as_it_was_printed_says_what_it_lacks(start: Any) -> None:
    service = start(_script("seed_pandas", fixed=False))
    assert service.ended() == 1
    assert "init() of score.py raised NameError: name 'os' is not defined" in service.lines[-1]


def test_the_binary_script_is_served_word_for_word(start: Any) -> None:
    service = start(_script("seed_binary")).ready()
    binary = bytes(range(256))
    reply = service.ask("POST", "/score", binary, {"content-type": "application/octet-stream"})
    assert (reply.status, reply.body) == (200, binary)
    assert service.ask("GET", "/score?image=7").body == b"/score?image=7"
    assert service.ask("GET", "/score").body == b"/score?"
    options = service.ask("OPTIONS", "/score")
    assert (options.status, options.body) == (500, b"bad request")
    assert service.ask("PUT", "/score").status == 405
    assert any("<AMLRequest 'http://127.0.0.1/score' [POST]>" in line for line in service.lines)


def test_the_cors_script_is_served_with_its_missing_decorator(start: Any) -> None:
    service = start(_script("seed_cors")).ready()
    reply = service.ask("POST", "/score", b"\x00\xff")
    assert (reply.status, reply.body) == (200, b"\x00\xff")
    assert reply.headers["access-control-allow-origin"] == "http://www.example.com"
    assert service.ask("GET", "/score?a=1").body == b"/score?a=1"


def test_the_cors_script_as_it_was_printed_says_what_it_lacks(start: Any) -> None:
    service = start(_script("seed_cors", fixed=False)).ready()
    assert service.ask("POST", "/score", b"x").status == 500
    assert any("decorate it with @rawhttp" in line for line in service.lines)
