"""scikit-learn models served without a script: the model file alone decides what is right."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import BisectingKMeans
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.decomposition import NMF
from sklearn.ensemble import AdaBoostRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.impute import SimpleImputer
from sklearn.linear_model import GammaRegressor, LogisticRegression, Ridge, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler, scale
from sklearn.svm import SVC

from stageway.desk.example import of as example_of
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Call, StartError

FEATURES, TARGET = load_diabetes(return_X_y=True)


@pytest.fixture(scope="module")
def ridge() -> Any:
    return Ridge().fit(FEATURES, TARGET)


def served(start: Any, folder: Path, *files: tuple[str, Any], **more: Any) -> Any:
    models = folder / "azureml-models" / "diabetes" / "1"
    models.mkdir(parents=True)
    for name, model in files:
        if name.endswith("joblib"):
            joblib.dump(model, models / name)
        else:
            (models / name).write_bytes(pickle.dumps(model))
    where = {"AZUREML_MODEL_DIR": "azureml-models/diabetes/1"}
    return start(None, "--framework", "scikitlearn", folder=folder, environment=where, **more)


@pytest.fixture(scope="module")
def service(start: Any, ridge: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return served(start, tmp_path_factory.mktemp("app"), ("model.joblib", ridge)).ready()


def test_predictions_are_those_of_the_model(service: Any, ridge: Any) -> None:
    rows = FEATURES[:100]
    reply = service.score({"data": rows.tolist(), "method": "predict"})
    assert reply.status == 200
    assert reply.json == {"predict": ridge.predict(rows).tolist()}
    assert service.score({"data": rows.tolist()}).json == reply.json


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b'{"data": [[', "the body is not JSON"),
        (b'{"rows": []}', "the parameter 'data' is missing"),
        (b"[[1]]", "the parameter 'data' is missing"),
        (b'{"data": []}', "'data' is not a list of rows"),
        (b'{"data": 3}', "'data' is not a list of rows"),
        (b'{"data": [1, 2]}', "row 0 is 1, not a list of 10 values"),
        (b'{"data": [[1, 2]]}', "row 0 has 2 values, the model takes 10"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,0], [1]]}', "row 1 has 1 values, the model takes 10"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,"ten"]]}', "could not convert string to float: 'ten'"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,null]]}', "Input X contains NaN"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,[1]]]}', "rows differ in shape"),
        (b'{"data": [{"age": 1}]}', "the model has no column names"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,0]], "method": "predict_proba"}', "the model has predict"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,0]], "method": "__init__"}', "no method '__init__'"),
    ],
)
def test_what_the_model_cannot_take_is_refused_with_a_sentence(service: Any, body: bytes, words: str) -> None:
    reply = service.ask("POST", "/score", body, {"content-type": "application/json"})
    assert reply.status == 400
    assert words in reply.json["message"]


def test_the_model_tells_how_many_columns_it_takes(service: Any) -> None:
    contract = service.ask("GET", "/contract.json").json
    assert contract["source"] == "signature"
    row = contract["request"]["properties"]["data"]["items"]
    assert (row["minItems"], row["maxItems"]) == (10, 10)


def test_a_contract_from_outside_wins_over_what_the_model_tells(start: Any, ridge: Any, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"request": null, "response": {"type": "object"}, "source": "samples"}')
    models = tmp_path / "m"
    models.mkdir()
    joblib.dump(ridge, models / "model.pkl")
    where = {"AZUREML_MODEL_DIR": "m"}
    service = start(None, "--framework", "ScikitLearn", "--contract", "c.json", folder=tmp_path, environment=where)
    assert service.ready().ask("GET", "/contract.json").json == {
        "request": None,
        "response": {"type": "object"},
        "source": "samples",
    }


def test_a_classifier_trained_on_a_table_takes_rows_and_records(start: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    model = LogisticRegression().fit(table, np.array(["no", "no", "yes", "yes"]))
    service = served(start, tmp_path, ("model.pkl", model)).ready()
    assert service.score({"data": [[0, 1], [3, 0]]}).json == {"predict": ["no", "yes"]}
    assert service.score({"data": [{"b": 0, "a": 3}]}).json == {"predict": ["yes"]}
    shares = service.score({"data": [[0, 1]], "method": "predict_proba"}).json
    assert shares == {"predict_proba": model.predict_proba(table[:1]).tolist()}
    reply = service.score({"data": [{"a": 3}]})
    assert (reply.status, reply.json) == (400, {"message": "'data': row 0 has no 'b'"})
    assert not [line for line in service.lines if "feature names" in line]


def test_other_files_beside_the_model_do_not_matter(start: Any, ridge: Any, tmp_path: Path) -> None:
    service = served(start, tmp_path, ("model.pkl", ridge), ("MLmodel", "flavors"), ("requirements.txt", "numpy"))
    assert service.ready().score({"data": FEATURES[:1].tolist()}).status == 200


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds 0: none"),
        (["a.pkl", "b.joblib"], "holds 2: a.pkl, b.joblib"),
    ],
)
def test_none_or_several_models_are_refused_at_the_start(
    start: Any, ridge: Any, tmp_path: Path, files: list[str], words: str
) -> None:
    service = served(start, tmp_path, *[(name, ridge) for name in files])
    assert service.ended() == 1
    assert service.lines[-1].startswith("stageway-serving: cannot start: without an entry script one model file is")
    assert words in service.lines[-1]


def test_a_model_that_cannot_be_read_is_refused_at_the_start(start: Any, ridge: Any, tmp_path: Path) -> None:
    service = served(start, tmp_path, ("model.pkl", {"no": "model"}))
    assert service.ended() == 1
    assert service.lines[-1].endswith("model.pkl holds a dict, which has no method predict")
    shutil.rmtree(tmp_path / "azureml-models")
    (tmp_path / "azureml-models" / "diabetes" / "1").mkdir(parents=True)
    (tmp_path / "azureml-models" / "diabetes" / "1" / "model.pkl").write_bytes(b"not a pickle")
    where = {"AZUREML_MODEL_DIR": "azureml-models/diabetes/1"}
    service = start(None, "--framework", "ScikitLearn", folder=tmp_path, environment=where)
    assert service.ended() == 1
    assert "model.pkl cannot be read" in service.lines[-1]
    assert not any("Traceback" in line for line in service.lines)


def dumped(model: Any) -> Any:
    return lambda folder: joblib.dump(model, folder / "model.joblib")


def skopsed(model: Any) -> Any:
    import skops.io

    return lambda folder: skops.io.dump(model, folder / "model.skops")


class Doubled(BaseEstimator, TransformerMixin):  # type: ignore[misc,unused-ignore]
    """A user's own step; nobody knows whether it looks at other rows."""

    def fit(self, rows: Any, target: Any = None) -> Doubled:
        self.n_features_in_ = np.shape(rows)[1]
        return self

    def transform(self, rows: Any) -> Any:
        return np.asarray(rows) * 2


TABLE = pd.DataFrame(FEATURES, columns=[f"f{number}" for number in range(10)])
TWO = TABLE[["f0", "f1"]].assign(kind=["a", "b"] * 221)


@pytest.mark.parametrize(
    ("model", "rows", "joins"),
    [
        (Ridge().fit(FEATURES, TARGET), FEATURES, True),
        (RandomForestRegressor(5, random_state=0).fit(FEATURES, TARGET), FEATURES, True),
        (make_pipeline(StandardScaler(), SVC()).fit(FEATURES, TARGET > 150), FEATURES, True),
        (GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}).fit(FEATURES, TARGET), FEATURES, True),
        (make_pipeline(SelectKBest(f_regression, k=3), Ridge()).fit(FEATURES, TARGET), FEATURES, True),
        (make_pipeline(Doubled(), Ridge()).fit(FEATURES, TARGET), FEATURES, False),
        (make_pipeline(FunctionTransformer(np.log1p), Ridge()).fit(FEATURES, TARGET), FEATURES, False),
        (NMF(2, init="random", random_state=0, max_iter=1000).fit(np.abs(FEATURES)), np.abs(FEATURES), False),
        (make_pipeline(StandardScaler(), Ridge()).fit(TABLE, TARGET), FEATURES, True),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "get_params") else "",
)
def test_rows_are_joined_where_estimators_are_known_to_treat_each_alone(
    load: Any, work: Any, scored: Any, model: Any, rows: Any, joins: bool
) -> None:
    scorer = load("ScikitLearn", dumped(model))
    bodies = [{"data": rows[at : at + 1 + at % 3].tolist()} for at in range(12)]
    alone = scored(scorer, bodies)
    assert (work(scorer, bodies[0]).key is not None) is joins
    if joins:
        method = scorer.methods[0]
        for joined, one in zip(scored(scorer, bodies, joined=True), alone, strict=True):
            np.testing.assert_allclose(np.asarray(joined[method], float), np.asarray(one[method], float), rtol=1e-12)


def test_the_owner_may_say_that_rows_are_independent(load: Any, work: Any) -> None:
    model = make_pipeline(Doubled(), Ridge()).fit(FEATURES, TARGET)
    scorer = load("ScikitLearn", dumped(model), batching="on")
    assert work(scorer, {"data": FEATURES[:1].tolist()}).key is not None


def test_a_model_with_names_takes_rows_without_making_a_table(load: Any, work: Any, scored: Any) -> None:
    model = Ridge().fit(TABLE, TARGET)
    scorer = load("ScikitLearn", dumped(model))
    expected = {"predict": model.predict(TABLE[:1]).tolist()}
    record = dict(reversed(list(TABLE.iloc[0].to_dict().items())))
    for body in ({"data": FEATURES[:1].tolist()}, {"data": [record]}, [record]):
        assert isinstance(work(scorer, body).data[1], np.ndarray)
        assert scored(scorer, [body]) == [expected]


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_a_model_that_looks_at_names_gets_a_table(load: Any, work: Any, scored: Any, output: str) -> None:
    encoded = ColumnTransformer([("kind", OneHotEncoder(sparse_output=False), ["kind"])], remainder="passthrough")
    model = make_pipeline(encoded, Ridge()).set_output(transform=output).fit(TWO, TARGET)
    scorer = load("ScikitLearn", dumped(model))
    bodies = [{"data": TWO[at : at + 1 + at % 2].to_numpy().tolist()} for at in range(6)]
    assert isinstance(work(scorer, bodies[0]).data[1], pd.DataFrame)
    alone = scored(scorer, bodies)
    for at, reply in enumerate(alone):
        np.testing.assert_allclose(reply["predict"], model.predict(TWO[at : at + 1 + at % 2]))
    for joined, one in zip(scored(scorer, bodies, joined=True), alone, strict=True):
        np.testing.assert_allclose(joined["predict"], one["predict"])


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", "1e300"])
def test_numbers_that_the_model_refuses_are_refused_as_ever(load: Any, value: str) -> None:
    # Trees hold 32 bits, so for them 1e300 is too large as well.
    model = AdaBoostRegressor(n_estimators=2, random_state=0).fit(FEATURES, TARGET)
    body = b'{"data": [[0,0,0,0,0,0,0,0,0,%s]]}' % value.encode()
    scorer = load("ScikitLearn", dumped(model))
    with pytest.raises(BadRequestError, match="Input X contains"):
        scorer.run(scorer.read(Call("POST", "/score", body, "", "application/json", dict)).data)


def test_models_that_know_missing_values_get_them(load: Any, scored: Any) -> None:
    model = HistGradientBoostingRegressor(max_iter=3).fit(FEATURES, TARGET)
    rows = FEATURES[:2].copy()
    rows[0, 4] = np.nan
    body = {"data": [[None if value != value else value for value in row] for row in rows.tolist()]}
    assert scored(load("ScikitLearn", dumped(model)), [body]) == [{"predict": model.predict(rows).tolist()}]


def test_requests_that_come_together_get_their_own_results(service: Any, ridge: Any, at_once: Any) -> None:
    expected = ridge.predict(FEATURES[:200])
    for number, reply in enumerate(at_once(service, [{"data": [row]} for row in FEATURES[:200].tolist()])):
        assert reply.json["predict"] == pytest.approx([expected[number]], rel=1e-12)


def test_the_replies_are_a_part_of_the_contract(load: Any) -> None:
    model = LogisticRegression().fit(FEATURES, np.array(["low", "high"])[(TARGET > 150).astype(int)])
    response = load("ScikitLearn", dumped(model)).contract.response
    shares = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    assert response["properties"]["predict"] == {"type": "array", "items": {"type": "string"}}
    assert response["properties"]["predict_proba"] == {"type": "array", "items": shares}


def test_a_file_of_skops_makes_only_what_somebody_trusts(
    load: Any, scored: Any, ridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"data": FEATURES[:1].tolist()}
    expected = [{"predict": ridge.predict(FEATURES[:1]).tolist()}]
    assert scored(load("ScikitLearn", skopsed(ridge)), [body]) == expected
    own = make_pipeline(Doubled(), Ridge()).fit(FEATURES, TARGET)
    sentence = r"types that skops does not trust: .*Doubled; if you do, name them in the variable SKOPS_TRUSTED_TYPES"
    with pytest.raises(StartError, match=sentence):
        load("ScikitLearn", skopsed(own))
    monkeypatch.setenv("SKOPS_TRUSTED_TYPES", f"{Doubled.__module__}.Doubled")
    assert scored(load("ScikitLearn", skopsed(own)), [body]) == [{"predict": own.predict(FEATURES[:1]).tolist()}]


PEOPLE = pd.DataFrame({"Age": [20, 30, 40, 50], "City Name": ["Oslo", "Rome"] * 2, "Income": [1.0, np.nan, 3.0, 4.0]})
ANSWERS = np.array(["no", "yes", "maybe", "yes"])


def of_people(**encoder: Any) -> Any:
    parts = [("city", OneHotEncoder(**encoder), ["City Name"]), ("numbers", SimpleImputer(), ["Income"])]
    return make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(PEOPLE, ANSWERS)


def row_of(scorer: Any) -> Any:
    return scorer.contract.request["properties"]["data"]["items"]


def test_a_model_with_columns_of_text_is_described_column_by_column(load: Any, scored: Any) -> None:
    model = of_people()
    scorer = load("ScikitLearn", dumped(model))
    row = row_of(scorer)
    assert (row["type"], row["required"]) == (["object", "array"], list(PEOPLE))
    # The first is dropped, so it may be anything.
    city = {"type": "string", "enum": ["Oslo", "Rome"]}
    assert row["properties"] == {"Age": {}, "City Name": city, "Income": {"type": "number"}}
    kinds = [(one.name, one.datatype, one.shape) for one in scorer.signature.inputs]
    assert kinds == [("Age", "FP64", (-1, 1)), ("City Name", "BYTES", (-1, 1)), ("Income", "FP64", (-1, 1))]
    outputs = {one.name: (one.datatype, one.shape) for one in scorer.signature.outputs}
    assert outputs["predict"] == ("BYTES", (-1,))
    assert outputs["predict_proba"] == ("FP64", (-1, 3))
    example = example_of(scorer.contract.request)
    assert scored(scorer, [example])[0]["predict"] in (["yes"], ["no"], ["maybe"])
    assert scored(scorer, [{"data": [[20, "Oslo", 1.0]]}]) == [{"predict": model.predict(PEOPLE[:1]).tolist()}]


def test_columns_of_text_are_tensors_of_their_own(serve: Any) -> None:
    model = of_people(handle_unknown="ignore")
    service = serve("ScikitLearn", dumped(model)).ready()
    inputs = [
        {"name": "Age", "datatype": "INT64", "shape": [2], "data": [20, 30]},
        {"name": "City Name", "datatype": "BYTES", "shape": [2, 1], "data": ["Oslo", "Rome"]},
        {"name": "Income", "datatype": "FP64", "shape": [2, 1], "data": [1.0, 2.5]},
    ]
    rows = PEOPLE[:2].assign(Income=[1.0, 2.5])
    for method in ("predict", "predict_proba"):
        body = json.dumps({"inputs": inputs, "outputs": [{"name": method}]}).encode()
        (given,) = service.ask("POST", "/v2/models/ML-service/infer", body).json["outputs"]
        expected = getattr(model, method)(rows)
        assert (given["name"], given["shape"]) == (method, list(expected.shape))
        assert np.reshape(given["data"], expected.shape).tolist() == expected.tolist()


def test_what_no_zeros_can_ask_says_what_its_classes_tell_and_why_there_are_no_tensors(load: Any, scored: Any) -> None:
    table = PEOPLE[["City Name"]]
    model = make_pipeline(FunctionTransformer(lengths, feature_names_out="one-to-one"), LogisticRegression())
    model.fit(table, ANSWERS)
    scorer = load("ScikitLearn", dumped(model))
    assert row_of(scorer)["properties"] == {"City Name": {}}
    shares = scorer.contract.response["properties"]["predict_proba"]["items"]
    assert (shares["minItems"], shares["maxItems"]) == (3, 3)
    assert scorer.signature is None
    with pytest.raises(BadRequestError, match="no tensors: it does not say what its columns hold") as caught:
        scorer.take({}, ())
    assert caught.value.status == 404
    assert scored(scorer, [{"data": [["Oslo"]]}]) == [{"predict": model.predict(table[:1]).tolist()}]


def lengths(table: Any) -> Any:
    return table.map(len)


def test_the_signature_of_mlflow_beside_a_model_names_types(load: Any) -> None:
    table = PEOPLE[["City Name"]].rename(columns={"City Name": "it's"})
    model = make_pipeline(FunctionTransformer(lengths, feature_names_out="one-to-one"), LogisticRegression())
    model.fit(table, ANSWERS)

    def fill(folder: Path) -> None:
        joblib.dump(model, folder / "model.pkl")
        inputs = json.dumps([{"type": "string", "name": "it's", "required": True}])
        document = {"flavors": {"sklearn": {}}, "signature": {"inputs": inputs, "outputs": None}}
        (folder / "MLmodel").write_text(yaml.safe_dump(document, width=30))

    scorer = load("ScikitLearn", fill)
    assert row_of(scorer)["properties"] == {"it's": {"type": "string"}}
    assert [(one.name, one.datatype) for one in scorer.signature.inputs] == [("it's", "BYTES")]


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(), Ridge()), ["string", "string"]),
        (make_column_transformer((TfidfVectorizer(), "text"), ("passthrough", [0])), ["number", "string"]),
        (
            make_column_transformer((OrdinalEncoder(), slice("kind", "text")), (StandardScaler(), [])),
            ["string", "string"],
        ),
    ],
    ids=["imputed", "words", "slices"],
)
def test_encoders_imputers_and_vectorizers_tell_what_their_columns_hold(
    load: Any, model: Any, kinds: list[str]
) -> None:
    kind: list[Any] = ["a", "b", "a"] if kinds[0] == "string" else [1.0, 2.0, 3.0]
    table = pd.DataFrame({"kind": kind, "text": ["one day", "two", "one"]})
    scorer = load("ScikitLearn", dumped(model.fit(table, [1.0, 2.0, 3.0])))
    assert [one["type"] for one in row_of(scorer)["properties"].values()] == kinds


def test_text_in_arrays_is_told_by_its_place(load: Any, scored: Any) -> None:
    encoded = ColumnTransformer([("kind", OneHotEncoder(), [1])], remainder="passthrough")
    model = make_pipeline(encoded, LogisticRegression())
    rows = np.array([[1.0, "a"], [2.0, "b"], [3.0, "a"]], dtype=object)
    model.fit(rows, [0, 1, 0])
    scorer = load("ScikitLearn", dumped(model))
    assert row_of(scorer)["prefixItems"] == [{"type": "number"}, {"type": "string", "enum": ["a", "b"]}]
    assert scorer.signature is None
    assert scored(scorer, [{"data": rows.tolist()}]) == [{"predict": model.predict(rows).tolist()}]
    assert list(scored(scorer, [example_of(scorer.contract.request)])[0]) == ["predict"]


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.utils._testing.check_output",
        "sklearn.utils._testing.TempMemmap",
        "sklearn.tree._export.export_graphviz",
        "sklearn.datasets._base.load_files",
        "sklearn.metrics.os",
        "sklearn.base.importlib",
        "sklearn.nowhere.Nothing",
    ],
)
def test_a_name_below_the_package_is_not_enough_for_skops(load: Any, name: str) -> None:
    def step(rows: Any) -> Any:
        return rows

    step.__module__, _, step.__name__ = name.rpartition(".")
    with pytest.raises(StartError, match=f"does not trust: {name}"):
        load("ScikitLearn", skopsed(FunctionTransformer(step)))


@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(3),
        HistGradientBoostingRegressor(max_iter=3),
        AdaBoostRegressor(n_estimators=3),
        make_pipeline(SimpleImputer(), SelectKBest(f_regression, k=3), Ridge()),
        make_pipeline(FunctionTransformer(scale), Ridge()),
        SGDRegressor(loss="huber", max_iter=5, tol=None),
        GammaRegressor(),
        KNeighborsRegressor(algorithm="kd_tree"),
        GaussianProcessRegressor(RBF(), optimizer=None),
        BisectingKMeans(2),
    ],
    ids=lambda model: type(model[-2] if hasattr(model, "steps") else model).__name__,
)
def test_what_skops_makes_of_ordinary_models_is_served(load: Any, scored: Any, model: Any) -> None:
    model.fit(FEATURES[:60], TARGET[:60])
    found = scored(load("ScikitLearn", skopsed(model)), [{"data": FEATURES[:2].tolist()}])
    np.testing.assert_allclose(found[0]["predict"], model.predict(FEATURES[:2]))


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["Income", "City Name", "Age"], "data": [[1.0, "Oslo", 20]]}},
        {"dataframe_split": {"data": [[20, "Oslo", 1.0]]}},
        {"dataframe_records": [{"Age": 20, "City Name": "Oslo", "Income": 1.0}]},
        {"inputs": {"Age": [20], "City Name": ["Oslo"], "Income": [1.0]}},
    ],
    ids=["split", "rows", "records", "columns"],
)
def test_bodies_of_mlflow_are_taken(load: Any, scored: Any, body: Any) -> None:
    model = of_people()
    scorer = load("ScikitLearn", dumped(model))
    assert scored(scorer, [body]) == [{"predictions": model.predict(PEOPLE[:1]).tolist()}]
    shares = model.predict_proba(PEOPLE[:1]).tolist()
    assert scored(scorer, [{**body, "method": "predict_proba"}]) == [{"predictions": shares}]


def test_bodies_of_mlflow_that_hold_no_rows_are_refused(load: Any, work: Any) -> None:
    scorer = load("ScikitLearn", dumped(of_people()))
    table: dict[str, Any] = {"data": [[1, 2]], "columns": ["a"]}
    values: list[Any] = [None, 3, [], {}, table, {**table, "columns": 3}, {"a": 1}, {"a": []}]
    for form in ("dataframe_split", "dataframe_records", "instances", "inputs"):
        for value in values:
            with pytest.raises(BadRequestError):
                work(scorer, {form: value})
    with pytest.raises(BadRequestError, match="'params' are for models"):
        work(scorer, {"instances": [[20, "Oslo", 1.0]], "params": {"a": 1}})
