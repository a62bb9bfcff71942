"""ONNX graphs served without a script: in v1's form, as nested lists, and as tensors."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge

from stageway.serving.frameworks import tensorproto
from stageway.serving.frameworks.named import fitting
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Tensor

FEATURES, TARGET = load_diabetes(return_X_y=True)
ROWS = FEATURES.astype("float32")


def converted(model: Any, **options: Any) -> bytes:
    from skl2onnx import to_onnx

    return bytes(to_onnx(model, ROWS[:1], target_opset=17, **options).SerializeToString())


def graph(*nodes: Any, inputs: list[Any], outputs: list[Any], weights: tuple[Any, ...] | list[Any] = ()) -> bytes:
    made = helper.make_model(
        helper.make_graph(list(nodes), "g", inputs, outputs, list(weights)),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    made.ir_version = 8
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def two_inputs() -> bytes:
    """Return ``s = a + b``, of whole numbers, and ``t``, the text that came in."""
    value = helper.make_tensor_value_info
    return graph(
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Identity", ["u"], ["t"]),
        inputs=[
            value("a", TensorProto.INT64, ["n", 2]),
            value("b", TensorProto.INT64, ["n", 2]),
            value("u", TensorProto.STRING, ["n"]),
        ],
        outputs=[value("s", TensorProto.INT64, ["n", 2]), value("t", TensorProto.STRING, ["n"])],
    )


def sums() -> bytes:
    """Return a graph whose result for one row has the other rows in it, which its shapes do not show."""
    value = helper.make_tensor_value_info
    return graph(
        helper.make_node("Constant", [], ["axis"], value=helper.make_tensor("v", TensorProto.INT64, [], [0])),
        helper.make_node("CumSum", ["x", "axis"], ["y"]),
        inputs=[value("x", TensorProto.FLOAT, ["n", 2])],
        outputs=[value("y", TensorProto.FLOAT, ["n", 2])],
    )


def proto(array: Any, number: int = TensorProto.FLOAT) -> dict[str, Any]:
    raw = base64.b64encode(array.tobytes()).decode()
    return {"dims": [str(length) for length in array.shape], "dataType": number, "rawData": raw}


@pytest.fixture(scope="module")
def model() -> bytes:
    return converted(Ridge().fit(FEATURES, TARGET))


@pytest.fixture(scope="module")
def expected(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"X": ROWS})[0]


@pytest.fixture(scope="module")
def service(serve: Any, model: bytes) -> Any:
    return serve("Onnx", lambda folder: (folder / "model.onnx").write_bytes(model)).ready()


@pytest.fixture(scope="module")
def mixed(serve: Any) -> Any:
    return serve("onnx", lambda folder: (folder / "sum.onnx").write_bytes(two_inputs())).ready()


def test_v1s_form_is_answered_in_v1s_form(service: Any, expected: Any) -> None:
    reply = service.score({"inputs": {"X": proto(ROWS[:3])}, "outputFilter": ["variable"]})
    assert reply.status == 200
    output = reply.json["outputs"]["variable"]
    assert (output["dims"], output["dataType"]) == (["3", "1"], TensorProto.FLOAT)
    given = np.frombuffer(base64.b64decode(output["rawData"]), "float32").reshape(3, 1)
    np.testing.assert_allclose(given, expected[:3], rtol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {"data": ROWS[:2].tolist()},
        {"X": ROWS[:2].tolist()},
        {"inputs": {"X": ROWS[:2].tolist()}},
        {"inputs": {"X": {"dims": [2, 10], "dataType": 1, "floatData": ROWS[:2].ravel().tolist()}}},
        {"inputs": {"X": {"dims": ["2", "10"], "data_type": 1, "raw_data": proto(ROWS[:2])["rawData"]}}},
    ],
)
def test_every_form_of_a_body_means_the_same(service: Any, expected: Any, body: dict[str, Any]) -> None:
    reply = service.score(body)
    assert reply.status == 200
    given = reply.json.get("variable")
    if given is None:
        raw = reply.json["outputs"]["variable"]["rawData"]
        given = np.frombuffer(base64.b64decode(raw), "float32").reshape(2, 1)
    np.testing.assert_allclose(given, expected[:2], rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"[1]", "the body is not an object"),
        (b"{}", "the input 'X' is missing"),
        (b'{"inputs": 3}', "'inputs' is not an object with 'X'"),
        (b'{"Y": [[1]]}', "the model has no input 'Y'; it takes 'X'"),
        (b'{"X": [[1, 2]]}', "the input 'X' has the shape [1, 2], the model takes [-1, 10]"),
        (b'{"X": [[1, 2], [3]]}', "its parts differ in length"),
        (b'{"X": [["a", "b"]]}', "the input 'X' holds values that are not FP32"),
        (b'{"X": [[true]]}', "the input 'X' holds values that are not FP32"),
        (b'{"X": [[1]], "outputFilter": ["no"]}', "the model has no output 'no'; it gives 'variable'"),
        (b'{"X": [[1]], "outputFilter": "no"}', "the output filter 'no' is not a list of names"),
        (b'{"inputs": {"X": {"dims": [1], "dataType": 99, "rawData": ""}}}', "has the dataType 99, which is none"),
        (b'{"inputs": {"X": {"dims": [-1], "dataType": 1, "rawData": ""}}}', "has the dims [-1], which are no lengths"),
        (b'{"inputs": {"X": {"dims": [1], "dataType": 1}}}', "has neither rawData nor floatData"),
        (b'{"inputs": {"X": {"dims": [1], "dataType": 1, "rawData": "%%"}}}', "holds '%%' where base64 is needed"),
        (b'{"inputs": {"X": {"dims": [2], "dataType": 1, "rawData": "AAAA"}}}', "has 3 bytes, its dims [2] of float32"),
        (b'{"inputs": {"X": {"dims": [3], "dataType": 1, "floatData": [1]}}}', "has 1 values, its dims [3] need 3"),
        (b'{"inputs": {"X": {"dims": [1], "dataType": 7, "int64Data": [1.5]}}}', "holds values that are not int64"),
        (b'{"inputs": {"X": {"dims": ["99999999999999999999"], "dataType": 1, "rawData": ""}}}', "are no lengths"),
        (b'{"inputs": {"X": {"dims": [1, 10], "dataType": 11, "doubleData": [0,0,0,0,0,0,0,0,0,0]}}}', "is FP64"),
    ],
)
def test_what_is_wrong_is_said(service: Any, body: bytes, words: str) -> None:
    reply = service.score(body)
    assert reply.status == 400
    assert words in reply.json["message"]


def test_whole_numbers_and_text_go_in_and_out(mixed: Any) -> None:
    body = {"a": [[1, 2]], "b": [[3, 2**53 + 1]], "u": ["né"]}
    assert mixed.score(body).json == {"s": [[4, 2**53 + 3]], "t": ["né"]}
    inputs = {
        "a": {"dims": [1, 2], "dataType": 7, "int64Data": ["1", "2"]},
        "b": proto(np.array([[3, 4]]), TensorProto.INT64),
        "u": {"dims": [1], "dataType": 8, "stringData": [base64.b64encode("né".encode()).decode()]},
    }
    outputs = mixed.score({"inputs": inputs}).json["outputs"]
    assert np.frombuffer(base64.b64decode(outputs["s"]["rawData"]), "int64").tolist() == [4, 6]
    assert base64.b64decode(outputs["t"]["stringData"][0]).decode() == "né"
    reply = mixed.score({"a": [[1.5, 2]], "b": [[1, 2]], "u": ["x"]})
    assert (reply.status, reply.json["message"]) == (400, "the input 'a' holds values that are not INT64")


def test_the_graph_declares_contract_and_tensors(service: Any) -> None:
    contract = service.ask("GET", "/contract.json").json
    row = {"type": "array", "items": {"type": "number"}, "minItems": 10, "maxItems": 10}
    assert contract["source"] == "signature"
    assert contract["request"]["properties"] == {"X": {"type": "array", "items": row}}
    assert set(contract["response"]["properties"]) == {"variable"}
    model = service.ask("GET", "/v2/models/ML-service").json
    assert (model["platform"], model["inputs"][0]) == (
        "onnx_onnxv1",
        {"name": "X", "datatype": "FP32", "shape": [-1, 10]},
    )
    given = {"name": "X", "datatype": "FP32", "shape": [1, 10], "data": ROWS[:1].ravel().tolist()}
    reply = service.score({"X": ROWS[:1].tolist()})
    asked = service.ask("POST", "/v2/models/ML-service/infer", json.dumps({"inputs": [given]}))
    assert asked.json["outputs"][0]["data"] == pytest.approx(reply.json["variable"][0], rel=1e-6)


def test_requests_that_come_together_get_their_own_results(service: Any, expected: Any, at_once: Any) -> None:
    bodies = [{"X": ROWS[number : number + 1].tolist()} for number in range(100)]
    for number, reply in enumerate(at_once(service, bodies)):
        assert reply.status == 200
        np.testing.assert_allclose(reply.json["variable"], expected[number : number + 1], rtol=1e-6)


def test_joined_rows_give_what_they_give_alone(load: Any, scored: Any, model: bytes) -> None:
    scorer = load("Onnx", lambda folder: (folder / "m.onnx").write_bytes(model))
    bodies = [{"X": ROWS[at : at + 1 + at % 3].tolist()} for at in range(20)]
    for joined, alone in zip(scored(scorer, bodies, joined=True), scored(scorer, bodies), strict=True):
        np.testing.assert_allclose(joined["variable"], alone["variable"], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "batching", "joins"), [(sums, "auto", False), (sums, "on", True), (sums, "off", False)]
)
def test_rows_that_are_not_independent_are_not_joined(
    load: Any, work: Any, make: Any, batching: str, joins: bool
) -> None:
    scorer = load("Onnx", lambda folder: (folder / "m.onnx").write_bytes(make()), batching=batching)
    assert (work(scorer, {"x": [[1, 2]]}).key is not None) is joins


def test_a_classifiers_probabilities_have_their_labels(load: Any, scored: Any) -> None:
    model = LogisticRegression().fit(FEATURES, np.array(["low", "high"])[(TARGET > 150).astype(int)])
    scorer = load("Onnx", lambda folder: (folder / "m.onnx").write_bytes(converted(model)))
    body = {"X": ROWS[:2].tolist()}
    (reply,) = scored(scorer, [body])
    assert reply["output_label"] == model.predict(ROWS[:2]).tolist()
    for row, shares in zip(reply["output_probability"], model.predict_proba(ROWS[:2]), strict=True):
        assert row == pytest.approx(dict(zip(model.classes_, shares, strict=True)), abs=1e-5)
    assert scored(scorer, [body, body], joined=True) == [reply, reply]


def test_a_file_that_is_no_graph_ends_the_start(serve: Any) -> None:
    service = serve("Onnx", lambda folder: (folder / "m.onnx").write_bytes(b"no graph"))
    assert service.ended() == 1
    assert "m.onnx cannot be read" in service.lines[-1]


def test_weights_beside_the_graph_are_found(load: Any, scored: Any) -> None:
    value = helper.make_tensor_value_info
    made = graph(
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        inputs=[value("x", TensorProto.FLOAT, ["n", 2])],
        outputs=[value("y", TensorProto.FLOAT, ["n", 1])],
        weights=[numpy_helper.from_array(np.array([[2.0], [3.0]], "float32"), "w")],
    )

    def fill(folder: Path) -> None:
        apart = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 0}
        onnx.save_model(onnx.load_from_string(made), str(folder / "m.onnx"), **apart)
        assert (folder / "weights.data").stat().st_size

    assert scored(load("Onnx", fill), [{"data": [[1, 10]]}]) == [{"y": [[32.0]]}]


@pytest.mark.parametrize(
    "given",
    [
        {"dims": [0, 2**61, 8], "dataType": 1, "rawData": ""},
        {"dims": [1] * 70, "dataType": 1, "rawData": "AAAAAA=="},
        {"dims": [2], "dataType": 10, "int32Data": [[1, 2], [3, 4]]},
    ],
)
def test_what_no_array_can_be_is_the_clients_mistake(given: Any) -> None:
    with pytest.raises(BadRequestError):
        tensorproto.read("x", given)


@pytest.mark.parametrize("kind", ["FP32", "INT64", "BOOL"])
def test_text_among_numbers_takes_no_room(kind: str, frugal: Any) -> None:
    with frugal(), pytest.raises(BadRequestError, match=f"values that are not {kind}"):
        fitting([[1], ["a"]] * 5_000 + [["x" * 20_000]], Tensor("x", kind, (-1, 1)))
    with frugal():
        found = fitting([["a"]] * 10_000 + [["x" * 20_000]], Tensor("x", "BYTES", (-1, 1)))
    assert found.shape == (10_001, 1)
