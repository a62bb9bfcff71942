"""A model behind BentoML, batching when ``BATCH`` is set: ``bentoml serve bento_app:Service``."""

import os

import bentoml  # type: ignore[import-not-found,unused-ignore]
import joblib
import numpy as np

BATCH = {"batchable": True, "max_batch_size": 64, "max_latency_ms": 10000} if os.environ.get("BATCH") else {}


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})  # type: ignore[untyped-decorator,unused-ignore]
class Service:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(route="/score", **BATCH)  # type: ignore[untyped-decorator,unused-ignore]
    def score(self, data: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.model.predict(data)
        return found
