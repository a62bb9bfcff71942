"""Which models get an ONNX form, and that a form that answers otherwise never serves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from stageway.serving import frameworks
from stageway.serving.acceleration import Accelerated
from stageway.serving.convert import graph
from stageway.serving.convert.graph import Graph
from stageway.serving.convert.verify import NotAcceleratedError, accelerate
from stageway.serving.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROWS, TARGET = load_diabetes(return_X_y=True)
FLOWERS = load_iris().data
NAMES = load_iris().target_names[load_iris().target]

Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Save a model and load it as the service does."""

    def load(model: Any, framework: str = "ScikitLearn") -> Any:
        folder = tmp_path / "model"
        folder.mkdir()
        joblib.dump(model, folder / "model.joblib")
        monkeypatch.setenv("AZUREML_MODEL_DIR", str(folder))
        return frameworks.load(Settings(framework=framework))

    return load


@pytest.fixture
def form(tmp_path: Path) -> Path:
    return tmp_path / "form"


def report(form: Path) -> Any:
    return json.loads((form / "report.json").read_text())


MODELS = {
    "ridge": lambda: (Ridge().fit(ROWS, TARGET), ROWS),
    "pipeline": lambda: (make_pipeline(StandardScaler(), LogisticRegression()).fit(FLOWERS, NAMES), FLOWERS),
    "forest": lambda: (RandomForestRegressor(10, random_state=0).fit(ROWS, TARGET), ROWS),
    "names": lambda: (RandomForestClassifier(10, random_state=0).fit(FLOWERS, NAMES), FLOWERS),
    "boosting": lambda: (HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(ROWS, TARGET), ROWS),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_form_of_a_model_answers_like_the_model(name: str, load: Load, form: Path) -> None:
    model, rows = MODELS[name]()
    scorer = load(model)
    accelerate(scorer, [json.dumps({"data": rows[:5].tolist()}).encode()], form)
    told = report(form)
    accelerated = Accelerated(scorer, form)
    for method in told["methods"]:
        assert told["compared"][method]["rows"] >= 2000
        found, original = accelerated.run((method, rows)), getattr(model, method)(rows)
        assert found.shape == original.shape
        if original.dtype.kind == "f":
            assert found.dtype == original.dtype
            assert np.abs(found - original).max() <= told["tolerance"] * np.abs(original).max()
        else:
            assert found.tolist() == original.tolist()


def test_a_model_in_64_bits_is_compared_to_nine_digits(load: Load, form: Path) -> None:
    accelerate(load(MODELS["ridge"]()[0]), [], form)
    told = report(form)
    assert (told["input"]["type"], told["tolerance"]) == ("float64", 1e-9)
    assert told["compared"]["predict"]["largest_difference"] < 1e-9


def only(kind: str) -> Any:
    """Return the converters' candidates of one type of inputs."""

    def candidates(model: Any, columns: int, methods: list[str]) -> Iterator[Graph]:
        return (one for one in graph.candidates(model, columns, methods) if one.type == kind)

    return candidates


@pytest.mark.parametrize("name", ["boosting", "tree behind a scaler"])
def test_thresholds_rounded_to_32_bits_are_caught(name: str, load: Load, form: Path) -> None:
    if name == "boosting":
        model = MODELS[name]()[0]
    else:
        model = make_pipeline(StandardScaler(), DecisionTreeRegressor(random_state=0)).fit(ROWS, TARGET)
    scorer = load(model)
    with pytest.raises(NotAcceleratedError, match=r"predict of its ONNX form \(float32 inputs\) differs by"):
        accelerate(scorer, [], form, only("float32"))
    accelerate(scorer, [], form)
    assert report(form)["input"]["type"] == "float64"


def changed(model: Any, columns: int, methods: list[str]) -> Iterator[Graph]:
    """A converter that writes one leaf wrongly."""
    for one in graph.candidates(model, columns, methods):
        for node in one.model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "target_weights_as_tensor":
                    values = np.frombuffer(attribute.t.raw_data, dtype="float64").copy()
                    values[0] *= 1.01
                    attribute.t.raw_data = values.tobytes()
                elif attribute.name == "target_weights":
                    attribute.floats[0] *= 1.01
        yield one


def test_a_form_with_one_wrong_leaf_never_serves(load: Load, form: Path) -> None:
    model = DecisionTreeRegressor(max_depth=5, random_state=0).fit(ROWS, TARGET)
    with pytest.raises(NotAcceleratedError, match=r"predict of its ONNX form .* differs by"):
        accelerate(load(model), [], form, changed)


class Doubled(Ridge):  # type: ignore[misc]
    """An estimator of a user's own, which a converter could take for its base class."""

    def predict(self, rows: Any) -> Any:
        return 2 * super().predict(rows)


def test_an_estimator_that_no_converter_knows_is_served_as_it_is(load: Load, form: Path) -> None:
    with pytest.raises(NotAcceleratedError, match=r"no ONNX form: .*Doubled"):
        accelerate(load(Doubled().fit(ROWS, TARGET)), [], form)


def test_columns_chosen_by_name_are_served_as_they_are(load: Load, form: Path) -> None:
    import pandas as pd

    table = pd.DataFrame(FLOWERS, columns=["a", "b", "c", "d"])
    model = make_pipeline(ColumnTransformer([("scaled", StandardScaler(), ["a", "c"])]), LogisticRegression())
    with pytest.raises(NotAcceleratedError, match="no ONNX form: "):
        accelerate(load(model.fit(table, NAMES)), [], form)


def test_names_of_columns_that_choose_nothing_are_no_hindrance(load: Load, form: Path) -> None:
    import pandas as pd

    model = RandomForestRegressor(10, random_state=0).fit(pd.DataFrame(ROWS).add_prefix("c"), TARGET)
    scorer = load(model)
    accelerate(scorer, [], form)
    body = json.dumps({"data": [{f"c{number}": value for number, value in enumerate(ROWS[0])}]}).encode()
    from stageway.serving.scorer import Call

    work = scorer.read(Call("POST", "/score", body, "", "application/json", dict))
    assert Accelerated(scorer, form).run(work.data) == pytest.approx(scorer.run(work.data), rel=1e-5)


def test_clusters_far_from_all_data_are_served_as_they_are(load: Load, form: Path) -> None:
    with pytest.raises(NotAcceleratedError, match=r"of its ONNX form .* differs"):
        accelerate(load(KMeans(3, n_init=1, random_state=0).fit(FLOWERS)), [], form)


class Numbers:
    """What asks the original is counted."""

    def __init__(self, scorer: Any) -> None:
        self.scorer, self.asked = scorer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scorer, name)

    def run(self, data: Any) -> Any:
        self.asked += 1
        return self.scorer.run(data)


def test_what_the_form_cannot_do_is_asked_of_the_original(load: Load, form: Path) -> None:
    scorer = load(MODELS["pipeline"]()[0])
    accelerate(scorer, [], form)
    original = Numbers(scorer)
    accelerated = Accelerated(original, form)
    accelerated.run(("predict", FLOWERS))
    accelerated.run(("predict_proba", FLOWERS.astype("int64")))
    assert original.asked == 0
    for method, rows in [
        ("decision_function", FLOWERS),
        ("predict", FLOWERS * 1e60),
        ("predict", FLOWERS.astype("float16")),
        ("predict", (FLOWERS * 1e15).astype("int64")),
    ]:
        accelerated.run((method, rows))
    assert original.asked == 4
    with pytest.raises(Exception, match="NaN"):
        accelerated.run(("predict", np.where(FLOWERS > 5, np.nan, FLOWERS)))
    with pytest.raises(Exception, match="infinity"):
        accelerated.run(("predict", np.where(FLOWERS > 5, np.inf, FLOWERS)))
    with pytest.raises(Exception, match="0 sample"):
        accelerated.run(("predict", FLOWERS[:0]))
    with pytest.raises(Exception, match="3 features"):
        accelerated.run(("predict", FLOWERS[:, :3]))


def test_missing_values_go_to_a_form_that_was_seen_to_know_them(load: Load, form: Path) -> None:
    holes = np.where(np.random.default_rng(0).random(ROWS.shape) < 0.1, np.nan, ROWS)
    scorer = load(HistGradientBoostingRegressor(max_iter=20).fit(holes, TARGET))
    accelerate(scorer, [], form)
    original = Numbers(scorer)
    found = Accelerated(original, form).run(("predict", holes))
    assert original.asked == 0
    assert found == pytest.approx(scorer.run(("predict", holes)), rel=1e-5)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("package", "kind"),
    [*itertools.product(("lightgbm", "xgboost"), ("regressor", "names")), ("xgboost", "booster")],
)
def test_boosters_of_other_packages(package: str, kind: str, load: Load, form: Path) -> None:
    library = pytest.importorskip(package)
    short, quiet = ("LGBM", {"verbose": -1}) if package == "lightgbm" else ("XGB", {})
    classes = load_iris().target if package == "xgboost" else NAMES
    if kind == "names":
        model, rows = getattr(library, short + "Classifier")(n_estimators=10, **quiet).fit(FLOWERS, classes), FLOWERS
    else:
        targets = TARGET if kind == "regressor" else (TARGET > 140).astype(int)
        name = short + ("Regressor" if kind == "regressor" else "Classifier")
        model, rows = getattr(library, name)(n_estimators=10, **quiet).fit(ROWS, targets), ROWS
    if kind == "booster":
        model = model.get_booster()
    scorer = load(model, {"lightgbm": "LightGBM", "xgboost": "XGBoost"}[package])
    accelerate(scorer, [], form)
    told = report(form)
    assert told["generated"]["thresholds"] > 0
    found, original = Accelerated(scorer, form).run(("predict", rows)), scorer.run(("predict", rows))
    assert found.shape == original.shape
    assert found.tolist() == (original.tolist() if kind == "names" else pytest.approx(original.tolist(), rel=1e-4))
