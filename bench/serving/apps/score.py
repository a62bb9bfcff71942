"""An entry script as its users write it; served unchanged by Stageway and by azureml-inference-server-http."""

import json
import os

import joblib
import numpy as np


def init():  # type: ignore[no-untyped-def]
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib"))  # type: ignore[name-defined]  # noqa: PTH118


def run(raw_data):  # type: ignore[no-untyped-def]
    data = np.array(json.loads(raw_data)["data"])
    return model.predict(data).tolist()  # type: ignore[name-defined]
