"""TorchScript modules served without a script, and what they do not say of their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore:.*torch.jit")]
torch = pytest.importorskip("torch")

ROWS = np.random.default_rng(0).standard_normal((40, 4)).astype("float32")


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()


def scripted(module: Any) -> Any:
    return lambda folder: torch.jit.save(torch.jit.script(module), str(folder / "model.pt"))


@pytest.fixture(scope="module")
def expected() -> Any:
    with torch.inference_mode():
        return network()(torch.from_numpy(ROWS)).numpy()


@pytest.fixture(scope="module")
def service(serve: Any) -> Any:
    return serve("TorchScript", scripted(network())).ready()


def test_results_are_those_of_the_module(service: Any, expected: Any) -> None:
    for body in ({"data": ROWS.tolist()}, {"input": ROWS.tolist()}, {"inputs": {"input": ROWS.tolist()}}):
        reply = service.score(body)
        assert reply.status == 200
        np.testing.assert_allclose(reply.json["output"], expected, rtol=1e-5, atol=1e-6)


def test_whole_numbers_are_what_the_weights_are(service: Any) -> None:
    with torch.inference_mode():
        expected = network()(torch.ones(1, 4)).numpy()
    np.testing.assert_allclose(service.score({"data": [[1, 1, 1, 1]]}).json["output"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "the body is not an object with 'input'"),
        (b"{}", "the input 'input' is missing"),
        (b'{"x": [[1]]}', "the model has no input 'x'; it takes 'input'"),
        (b'{"data": [[1, 2]]}', "the model refused the data: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (b'{"data": [[1], [1, 2]]}', "its parts differ in length"),
        (b'{"data": [["a"]]}', "holds values that are not FP32"),
        (b'{"data": [[1]], "datatype": "FP99"}', "has the datatype 'FP99', which is none of numbers"),
    ],
)
def test_what_is_wrong_is_said(service: Any, body: bytes, words: str) -> None:
    reply = service.score(body)
    assert reply.status == 400
    assert words in reply.json["message"]


def test_the_open_inference_protocol_is_told_that_no_tensors_are_declared(service: Any) -> None:
    reply = service.ask("POST", "/v2/models/ML-service/infer", b'{"inputs": []}')
    assert reply.status == 404
    assert "the model declares no tensors" in reply.json["error"]


def test_requests_that_come_together_get_their_own_results(service: Any, expected: Any, at_once: Any) -> None:
    for number, reply in enumerate(at_once(service, [{"data": [row]} for row in ROWS.tolist()])):
        np.testing.assert_allclose(reply.json["output"][0], expected[number], rtol=1e-5, atol=1e-6)


def test_rows_are_joined_only_where_the_owner_says_so(load: Any, work: Any, scored: Any) -> None:
    body = {"data": ROWS[:2].tolist()}
    assert work(load("TorchScript", scripted(network())), body).key is None
    scorer = load("TorchScript", scripted(network()), batching="on")
    bodies = [{"data": ROWS[at : at + 1 + at % 2].tolist()} for at in range(9)]
    for joined, alone in zip(scored(scorer, bodies, joined=True), scored(scorer, bodies), strict=True):
        np.testing.assert_allclose(joined["output"], alone["output"], rtol=1e-5, atol=1e-6)


class Words(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    """Takes whole numbers and a mask, gives two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 2)

    def forward(self, ids: Any, mask: Any) -> Any:
        return (self.table(ids) * mask.unsqueeze(-1)).sum(dim=1), ids + 1


def test_arguments_of_other_types_say_so(load: Any, scored: Any) -> None:
    torch.manual_seed(0)
    module = Words().eval()
    ids, mask = [[1, 2]], [[1.0, 0.0]]
    given = torch.tensor(ids), torch.tensor(mask)
    scorer = load("TorchScript", lambda folder: torch.jit.save(torch.jit.trace(module, given), str(folder / "m.pt")))
    (reply,) = scored(scorer, [{"ids": {"data": ids, "datatype": "INT64"}, "mask": mask}])
    with torch.inference_mode():
        sums, _ = module(*given)
    np.testing.assert_allclose(reply["output_0"], sums.numpy(), rtol=1e-6)
    assert reply["output_1"] == [[2, 3]]
    assert sorted(scorer.contract.request["required"]) == ["ids", "mask"]


def test_a_file_that_is_no_module_ends_the_start(serve: Any) -> None:
    def fill(folder: Path) -> None:
        torch.save({"weights": torch.zeros(1)}, folder / "model.pth")

    service = serve("TorchScript", fill)
    assert service.ended() == 1
    assert "model.pth cannot be read" in service.lines[-1]
