"""A service with an ONNX form whose package is missing says so in one sentence."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import joblib
from sklearn.linear_model import Ridge


def test_a_release_without_onnxruntime_does_not_start(start: Any, tmp_path: Path) -> None:
    joblib.dump(Ridge().fit([[0.0], [1.0]], [0.0, 1.0]), tmp_path / "model.joblib")
    form, site = tmp_path / "form", tmp_path / "site"
    form.mkdir()
    (form / "report.json").write_text('{"format": 1, "nan": false}')
    site.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith("onnx") and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    environment = {"STAGEWAY_SITE": str(site), "AZUREML_MODEL_DIR": str(tmp_path)}
    service = start(None, "--framework", "ScikitLearn", "--accelerated", str(form), environment=environment)
    assert service.ended() == 1
    (said,) = (line for line in service.lines if "cannot start" in line)
    assert said.startswith(f"stageway-serving: cannot start: --accelerated {form}: the package onnxruntime is missing ")
    assert said.endswith("; add it to the dependencies")
    assert not any("Traceback" in line for line in service.lines)
