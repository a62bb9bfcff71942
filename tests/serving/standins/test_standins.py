"""Which names the stand-ins answer for, that real packages win name by name, and what is said of what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stageway.serving import standins

PREPARED = "from stageway.serving import standins\nstandins.install()\n"


def _python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run *code* after the stand-ins are installed, with *folders* as further places of packages."""
    paths = f"import sys\nsys.path[:0] = {[str(folder) for folder in folders]!r}\n"
    return subprocess.run([sys.executable, "-c", paths + PREPARED + code], capture_output=True, text=True)


def _wrote(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_every_name_can_be_imported() -> None:
    names = [name for name in standins.NAMES if not name.endswith("spark_parameter_type")]
    outcome = _python("import importlib\n" + "".join(f"importlib.import_module({name!r})\n" for name in names))
    assert outcome.returncode == 0, outcome.stderr


def test_what_v1s_scripts_import_is_there() -> None:
    outcome = _python(
        "from azureml.core.model import Model\n"
        "from azureml.core import Model as same, Workspace, Run, Dataset, Experiment, Environment\n"
        "import azureml.core; assert azureml.core.VERSION == azureml.core.__version__ and same is Model\n"
        "from azureml.contrib.services.aml_request import AMLRequest, rawhttp\n"
        "from azureml.contrib.services.aml_response import AMLResponse\n"
        "from azureml.monitoring import ModelDataCollector\n"
        "from sklearn.externals import joblib\n"
        "import joblib as real, sklearn.externals.joblib.numpy_pickle as inner, joblib.numpy_pickle as outer\n"
        "assert joblib is real and inner is outer and real.__spec__.name == 'joblib'\n"
        "from stageway.serving.collection import ModelDataCollector as ours\n"
        "assert ModelDataCollector is ours\n"
    )
    assert outcome.returncode == 0, outcome.stderr


def test_real_packages_win_name_by_name(tmp_path: Path) -> None:
    packages = _wrote(
        tmp_path,
        {
            "azureml/__init__.py": "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n",
            "azureml/core/__init__.py": "",
            "azureml/core/model.py": "class Model:\n    real = True\n",
        },
    )
    outcome = _python(
        "from azureml.core.model import Model\n"
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "print(Model.real, rawhttp.__module__, sys.modules['azureml'].__file__)\n",
        packages,
    )
    where = packages / "azureml" / "__init__.py"
    assert outcome.stdout.split() == ["True", "azureml.contrib.services.aml_request", str(where)], outcome.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import azureml.pipeline", "No module named 'azureml.pipeline'"),
        ("from azureml.core import Nope", "cannot import name 'Nope'"),
        ("from azureml.core import Run; Run.get_context()", "Run.get_context asks a workspace, which a service does"),
        ("from azureml.core import Workspace; Workspace('w')", "Workspace(...) asks a workspace, which a service does"),
        ("from azureml.core.model import Model; Model.register()", "Model.register is not there in a service"),
        ("from azureml.core.model import Model; Model(None, 'm')", "use Model.get_model_path(name)"),
        ("from azureml.train.automl import AutoMLConfig", "cannot import name 'AutoMLConfig'"),
        ("import azureml.train.automl as a; a.runtime", "add azureml-train-automl-runtime to the dependencies"),
        ("import azureml.monitoring as m; m.Other", "has no attribute 'Other'"),
        ("import sklearn.externals.six", "No module named 'sklearn.externals.six'"),
    ],
)
def test_what_is_missing_is_said(code: str, words: str) -> None:
    outcome = _python(code)
    assert outcome.returncode == 1
    assert words in outcome.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "said", "package"),
    [
        ("from azureml.core import Nope", "cannot import name 'Nope' from 'azureml.core'", "azureml-core"),
        ("import azureml.telemetry", "No module named 'azureml.telemetry'", "azureml-telemetry"),
        ("import azureml.automl.core.shared", "No module named 'azureml.automl'", "azureml-automl-core"),
        ("import azureml.pipe", "No module named 'azureml.pipe'", "the package that has it"),
        (
            "from azureml.train.automl import AutoMLConfig",
            "cannot import name 'AutoMLConfig' from 'azureml.train.automl'",
            "azureml-train-automl-runtime",
        ),
    ],
)
def test_a_script_that_imports_more_ends_the_start_with_a_way_out(
    start: Any, line: str, said: str, package: str
) -> None:
    service = start(f"{line}\ndef run(data):\n    return 1\n")
    assert service.ended() == 1
    last = service.lines[-1]
    assert f"Error: {said}; Stageway stands in for azureml.core, contrib.services" in last
    assert f"add {package} to the dependencies, or remove the import if it is only habit" in last
    assert not any("standins" in line for line in service.lines)


@pytest.mark.parametrize(
    ("files", "environment", "asked", "found"),
    [
        (["azureml-models/m/1/m.pkl"], "", "'m'", "azureml-models/m/1/m.pkl"),
        (["azureml-models/m/9/m.pkl", "azureml-models/m/10/m.pkl"], "", "'m'", "azureml-models/m/10/m.pkl"),
        (["azureml-models/m/9/m.pkl", "azureml-models/m/10/m.pkl"], "", "'m', 9", "azureml-models/m/9/m.pkl"),
        (["azureml-models/m/2/folder/a", "azureml-models/m/2/folder/b"], "", "'m', '2'", "azureml-models/m/2/folder"),
        (["m"], "", "'m'", "m"),
        (["m/part"], "", "'m'", "m"),
        (["place/m/3/m.pkl"], "place/m/3", "'m'", "place/m/3/m.pkl"),
        (["place/m/3/m.pkl", "place/n/1/n.pkl"], "place", "'n'", "place/n/1/n.pkl"),
        (["place/m/3/m.pkl"], "azureml-models/m/3", "'m', _workspace=None", None),
        (["azureml-models/m/1/a", "azureml-models/m/1/b"], "", "'m'", None),
        (["azureml-models/m/1/a"], "", "'m', 2", None),
        ([], "", "model_name='m', version=None", None),
    ],
)
def test_files_of_a_model_are_found(
    tmp_path: Path, files: list[str], environment: str, asked: str, found: str | None
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    outcome = _python(
        f"import os\nos.chdir({str(tmp_path)!r})\nos.environ['AZUREML_MODEL_DIR'] = {environment!r}\n"
        f"from azureml.core.model import Model\nprint(Model.get_model_path({asked}))\n"
    )
    if found is not None:
        assert outcome.stdout.strip() == found, outcome.stderr
    else:
        last = outcome.stderr.splitlines()[-1]
        assert last.startswith("FileNotFoundError: model 'm' is not found: azureml-models/m")
        assert f"there is no m in {tmp_path}" in last
