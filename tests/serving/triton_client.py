"""What a user of Triton's client does, run by test_v2 with the server's port; it ends with ``done``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

MODEL = "diabetes"


def tensor(name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def refused(text: str, status: str, call: Callable[[], Any]) -> None:
    with pytest.raises(InferenceServerException, match=re.escape(text)) as error:
        call()
    assert error.value.status() == status


def main(port: str) -> None:
    client = triton.InferenceServerClient("127.0.0.1:" + port)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "3")
    assert not client.is_model_ready("iris")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata(MODEL, "3")["inputs"][0] == {"name": "rows", "datatype": "FP64", "shape": [-1, 2]}

    rows, factor = np.array([[1.5, np.inf], [np.nan, -0.0]]), np.array([3], dtype=np.int32)
    expected = rows * 3
    plain = np.array([[1.5, 2.0]])
    for binary in (True, False):
        inputs = [tensor("rows", plain, "FP64", binary=binary), tensor("factor", factor, "INT32", binary=not binary)]
        for wanted in (True, False):
            outputs = [triton.InferRequestedOutput("output", binary_data=wanted)]
            result = client.infer(MODEL, inputs, request_id="7", outputs=outputs)
            np.testing.assert_array_equal(result.as_numpy("output"), plain * 3)
            assert result.get_response()["id"] == "7"
            assert ("data" in result.get_output("output")) is not wanted

    inputs = [tensor("rows", rows, "FP64"), tensor("factor", factor, "INT32")]
    for packing in (None, "gzip", "deflate"):
        result = client.infer(
            MODEL,
            inputs,
            model_version="3",
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
            parameters={"mine": 1},
        )
        assert result.as_numpy("output").tobytes() == expected.tobytes()
    waiting = [client.async_infer(MODEL, inputs) for _ in range(8)]
    for one in waiting:
        assert one.get_result().as_numpy("output").tobytes() == expected.tobytes()
    empty = client.infer(MODEL, [tensor("rows", np.empty((0, 2)), "FP64"), inputs[1]])
    assert empty.as_numpy("output").size == 0

    refused("the input 'factor' is missing", "400", lambda: client.infer(MODEL, inputs[:1]))
    refused("there is no /v2/models/iris", "404", lambda: client.get_model_metadata("iris"))
    wide = [tensor("rows", np.ones((1, 3)), "FP64"), inputs[1]]
    refused("has the shape [1, 3], the model takes [-1, 2]", "400", lambda: client.infer(MODEL, wide))
    zero = [inputs[0], tensor("factor", np.array([0], dtype=np.int32), "INT32")]
    refused("the model's code raised an error", "500", lambda: client.infer(MODEL, zero))
    client.close()
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
