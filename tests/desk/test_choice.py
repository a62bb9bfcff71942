"""What is served: by a path, by the project, and what is said where neither settles it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stageway.desk.choice import choose
from stageway.errors import ConfigError


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGEWAY_WORKSPACE", raising=False)
    for name in ("m.pkl", "m.skops", "m.onnx", "m.pt", "m.bin", "score.py"):
        (tmp_path / name).touch()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    (tmp_path / "odd name").mkdir()
    (tmp_path / "odd name" / "weights").touch()
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize(
    ("path", "framework"),
    [
        ("m.pkl", "ScikitLearn"),
        ("m.skops", "ScikitLearn"),
        ("m.onnx", "Onnx"),
        ("m.pt", "TorchScript"),
        ("saved", "TensorFlow"),
    ],
)
def test_the_files_say_what_reads_them(path: str, framework: str) -> None:
    found = choose(path, script=None, framework=None)
    assert found.framework == framework
    assert found.script is None


def test_the_framework_that_is_named_wins() -> None:
    assert choose("m.pkl", script=None, framework="XGBoost").framework == "XGBoost"


def test_an_mlflow_folder_says_its_framework_and_its_contract(tmp_path: Path) -> None:
    signature = '{"inputs": \'[{"type": "double", "name": "a"}]\', "outputs": null}'
    (tmp_path / "saved" / "MLmodel").write_text(
        f"flavors: {{sklearn: {{sklearn_version: 1.7}}}}\nsignature: {signature}\n"
    )
    found = choose("saved", script=None, framework=None)
    assert found.framework == "ScikitLearn"
    assert found.contract is not None
    assert found.contract.source == "signature"


def test_an_mlflow_folder_of_another_kind_is_asked_through_mlflow(tmp_path: Path) -> None:
    (tmp_path / "saved" / "MLmodel").write_text("flavors: {prophet: {}, python_function: {}}\n")
    assert choose("saved", script=None, framework=None).framework == "MLflow"


def test_a_model_from_disk_is_version_1_of_what_the_file_is_called() -> None:
    assert choose("m.pkl", script=None, framework=None).models[0].place.label == "m:1"
    named = choose("odd name", script=Path("score.py"), framework=None)
    assert named.models[0].place.path == "azureml-models/odd-name/1"


@pytest.mark.parametrize(
    ("what", "script", "framework", "said"),
    [
        (None, None, None, "stageway serve: what? name a model file, or --entry-script score.py, or go to a project"),
        ("./gone.pkl", None, None, "model './gone.pkl': no such file or folder in"),
        ("gone.onnx", None, None, "model 'gone.onnx': no such file or folder in"),
        ("diabetes:3", None, None, "model 'diabetes:3': no such file or folder, and there is no project here"),
        ("m.bin", None, None, "model 'm.bin': its files do not say what reads them; name the framework"),
        ("score.py", None, None, "model 'score.py': is a script; `stageway serve --entry-script score.py` serves it"),
        ("m.pkl", Path("gone.py"), None, "--entry-script 'gone.py': no such file in"),
        ("m.pkl", Path("score.py"), "Onnx", "--entry-script and --framework: give one of them"),
        ("gone.py", None, None, "model 'gone.py': no such file in"),
        (
            "m.pkl",
            Path("saved"),
            None,
            "--entry-script 'saved': is a folder; name the script in it, such as saved/score.py",
        ),
        ("empty", None, None, "model 'empty': the folder is empty"),
    ],
)
def test_what_cannot_be_known_is_one_line_with_the_way_out(
    what: str | None, script: Path | None, framework: str | None, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(what, script=script, framework=framework)
    assert caught.value.message.startswith(said)
    assert "\n" not in caught.value.message


def test_several_models_are_served_with_one_script() -> None:
    found = choose("m.pkl", "saved", script=Path("score.py"), framework=None)
    assert [one.place.path for one in found.models] == ["azureml-models/m/1", "azureml-models/saved/1"]
    assert found.said == "m.pkl and saved with score.py"


@pytest.mark.parametrize(
    ("models", "script", "said"),
    [
        (("m.pkl", "m.onnx"), None, "models m.pkl, m.onnx: name the script that uses them all with --entry-script"),
        (("m.pkl", "m.onnx"), Path("score.py"), "model 'm': is given twice"),
    ],
)
def test_several_models_that_one_script_cannot_tell_apart_are_refused(
    models: tuple[str, ...], script: Path | None, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(*models, script=script, framework=None)
    assert caught.value.message.startswith(said)


def test_a_path_in_a_project_is_served_without_its_script_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stageway.yml").write_text("model: times\nserve: {entry-script: score.py}\nstages: {dev: {}}\n")
    assert choose("m.pkl", script=None, framework=None).script is None
    assert "m.pkl is served as ScikitLearn, without the project's script; add --entry-script score.py" in (
        capsys.readouterr().err
    )
