"""SavedModels served without a script, in TensorFlow Serving's forms."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.frameworks
tensorflow = pytest.importorskip("tensorflow")

ROWS = np.random.default_rng(0).standard_normal((40, 4)).astype("float32")
WEIGHTS = np.arange(12, dtype="float32").reshape(4, 3) / 10


def dense(folder: Path) -> None:
    """Save ``scores = x @ WEIGHTS`` for rows of four numbers."""
    module = tensorflow.Module()
    module.weights = tensorflow.Variable(WEIGHTS)

    def score(x: Any) -> Any:
        return {"scores": tensorflow.matmul(x, module.weights)}

    graph = tensorflow.function(score, input_signature=[tensorflow.TensorSpec([None, 4], tensorflow.float32, name="x")])

    tensorflow.saved_model.save(module, str(folder / "saved"), signatures={"serving_default": graph})


def images(folder: Path) -> None:
    """Save a graph that takes bytes and a number, and gives the bytes' length and the bytes turned round."""
    module = tensorflow.Module()
    inputs = [
        tensorflow.TensorSpec([None], tensorflow.string, name="image_bytes"),
        tensorflow.TensorSpec([None], tensorflow.int32, name="times"),
    ]

    def measure(image_bytes: Any, times: Any) -> Any:
        return {
            "length": tensorflow.strings.length(image_bytes) * times,
            "same_bytes": image_bytes,
            "text": image_bytes,
        }

    graph = tensorflow.function(measure, input_signature=inputs)

    tensorflow.saved_model.save(module, str(folder), signatures={"serving_default": graph})


def cumulated(folder: Path) -> None:
    """Save a graph whose result for one row has the other rows in it."""
    module = tensorflow.Module()

    def add(x: Any) -> Any:
        return {"y": tensorflow.cumsum(x)}

    graph = tensorflow.function(add, input_signature=[tensorflow.TensorSpec([None, 2], tensorflow.float32, name="x")])

    tensorflow.saved_model.save(module, str(folder), signatures={"serving_default": graph})


@pytest.fixture(scope="module")
def service(serve: Any) -> Any:
    return serve("TensorFlow", dense).ready()


@pytest.fixture(scope="module")
def pictures(serve: Any) -> Any:
    return serve("TensorFlow", images).ready()


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"instances": ROWS.tolist()}, "predictions"),
        ({"instances": [{"x": row} for row in ROWS.tolist()]}, "predictions"),
        ({"inputs": ROWS.tolist()}, "outputs"),
        ({"inputs": {"x": ROWS.tolist()}, "signature_name": "serving_default"}, "outputs"),
    ],
)
def test_rows_and_columns_are_answered_as_they_were_asked(service: Any, body: dict[str, Any], key: str) -> None:
    reply = service.score(body)
    assert (reply.status, list(reply.json)) == (200, [key])
    np.testing.assert_allclose(reply.json[key], ROWS @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_bytes_go_in_and_out_as_base64(pictures: Any) -> None:
    raw = bytes(range(256))
    packed = {"b64": base64.b64encode(raw).decode()}
    body = {"instances": [{"image_bytes": packed, "times": 2}, {"image_bytes": "né", "times": 1}]}
    named = {"b64": base64.b64encode("né".encode()).decode()}
    assert pictures.score(body).json == {
        "predictions": [
            {"length": 512, "same_bytes": packed, "text": packed},
            {"length": 3, "same_bytes": named, "text": "né"},
        ]
    }
    columns = pictures.score({"inputs": {"image_bytes": [packed], "times": [1]}}).json["outputs"]
    assert columns == {"length": [256], "same_bytes": [packed], "text": [packed]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "one of 'instances' and 'inputs' is needed"),
        (b'{"instances": [[1]], "inputs": [[1]]}', "one of 'instances' and 'inputs' is needed"),
        (b'{"instances": []}', "'instances' is not a list of rows"),
        (b'{"instances": [[1, 2]]}', "the input 'x' has the shape [1, 2], the model takes [-1, 4]"),
        (b'{"instances": [{"y": 1}]}', "the model has no input 'y'; it takes 'x'"),
        (b'{"instances": [{"x": 1}, {"y": 1}]}', "row 1 has other inputs than row 0"),
        (b'{"instances": [["a"]]}', "holds values that are not FP32"),
        (b'{"instances": [[1], [1, 2]]}', "its parts differ in length"),
        (b'{"instances": [[1]], "signature_name": "other"}', "the signature 'other' is not served"),
    ],
)
def test_what_is_wrong_is_said(service: Any, body: bytes, words: str) -> None:
    reply = service.score(body)
    assert reply.status == 400
    assert words in reply.json["message"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image_bytes": {"b64": "%%"}, "times": 1}, "where text or base64 is needed"),
        ({"image_bytes": 3, "times": 1}, "where text or base64 is needed"),
        ({"image_bytes": "a", "times": 1.5}, "the input 'times' holds values that are not INT32"),
        ({"image_bytes": "a"}, "the input 'times' is missing"),
        ("a", "the model has the inputs 'image_bytes', 'times'; name each"),
    ],
)
def test_what_is_wrong_with_bytes_is_said(pictures: Any, row: Any, words: str) -> None:
    reply = pictures.score({"instances": [row]})
    assert reply.status == 400
    assert words in reply.json["message"]


def test_requests_that_come_together_get_their_own_results(service: Any, at_once: Any) -> None:
    for number, reply in enumerate(at_once(service, [{"instances": [row]} for row in ROWS.tolist()])):
        np.testing.assert_allclose(reply.json["predictions"][0], ROWS[number] @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_the_signature_is_contract_and_tensors(service: Any) -> None:
    contract = service.ask("GET", "/contract.json").json
    row = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    assert contract["request"]["properties"] == {"instances": {"type": "array", "items": row}}
    model = service.ask("GET", "/v2/models/ML-service").json
    assert model["platform"] == "tensorflow_savedmodel"
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert model["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]


def test_joined_rows_give_what_they_give_alone(load: Any, scored: Any) -> None:
    scorer = load("TensorFlow", dense)
    bodies = [{"instances": ROWS[at : at + 1 + at % 2].tolist()} for at in range(9)]
    for joined, alone in zip(scored(scorer, bodies, joined=True), scored(scorer, bodies), strict=True):
        np.testing.assert_allclose(joined["predictions"], alone["predictions"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("batching", "joins"), [("auto", False), ("on", True)])
def test_rows_that_are_not_independent_are_not_joined(load: Any, work: Any, batching: str, joins: bool) -> None:
    scorer = load("TensorFlow", cumulated, batching=batching)
    assert (work(scorer, {"instances": [[1, 2]]}).key is not None) is joins


def test_a_model_of_keras_is_served_from_its_export(load: Any, scored: Any) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    scorer = load("TensorFlow", lambda folder: model.export(str(folder / "export"), verbose=False))
    (reply,) = scored(scorer, [{"instances": ROWS.tolist()}])
    np.testing.assert_allclose(reply["predictions"], model(ROWS).numpy(), rtol=1e-5, atol=1e-6)


def test_a_folder_without_a_saved_model_ends_the_start(serve: Any) -> None:
    service = serve("TensorFlow", lambda folder: (folder / "weights.h5").write_bytes(b""))
    assert service.ended() == 1
    assert "one model folder with saved_model.pb is served" in service.lines[-1]
