"""A model behind FastAPI as people write it: ``uvicorn fastapi_app:app``; one endpoint is ``async``, one is not."""

import os

import joblib
import numpy as np
from fastapi import FastAPI  # type: ignore[import-not-found,unused-ignore]
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["MODEL"])


class Request(BaseModel):
    data: list[list[float]]


class Reply(BaseModel):
    predictions: list[float]


@app.post("/score")  # type: ignore[untyped-decorator,unused-ignore]
def score(request: Request) -> Reply:
    return Reply(predictions=model.predict(np.array(request.data)).tolist())


@app.post("/score-async")  # type: ignore[untyped-decorator,unused-ignore]
async def score_async(request: Request) -> Reply:
    return Reply(predictions=model.predict(np.array(request.data)).tolist())


@app.get("/")  # type: ignore[untyped-decorator,unused-ignore]
def health() -> str:
    return "ok"
