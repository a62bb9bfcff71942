"""A model behind LitServe: ``python lit_app.py PORT BATCH``; a batch of 1 is none."""

import os
import sys
from typing import Any

import joblib
import litserve as ls  # type: ignore[import-not-found,unused-ignore]
import numpy as np


class Model(ls.LitAPI):  # type: ignore[misc,unused-ignore]
    def setup(self, device: Any) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    # It reads annotations: one would make the body a query parameter.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return np.array(request["data"])

    def predict(self, x: Any) -> Any:
        return self.model.predict(x)

    def encode_response(self, output: Any) -> Any:
        return {"predictions": output.tolist()}


class Batching(Model):
    def batch(self, inputs: Any) -> Any:
        self.lengths = [len(one) for one in inputs]
        return np.concatenate(inputs)

    def unbatch(self, output: Any) -> Any:
        return np.split(output, np.cumsum(self.lengths)[:-1])


if __name__ == "__main__":
    port, batch = int(sys.argv[1]), int(sys.argv[2])
    api = Batching(max_batch_size=batch, batch_timeout=0.005) if batch > 1 else Model()
    ls.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=port, generate_client_file=False, num_api_servers=1, log_level="warning"
    )
