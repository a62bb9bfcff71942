"""The prediction thread: one call at a time, errors come back, a call over its limit is given up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from stageway.serving.predictor import Predictor


def test_start_and_predictions_share_a_thread_and_come_one_at_a_time() -> None:
    predictor = Predictor()
    begun = []
    predictor.call(lambda: begun.append(threading.get_ident()))
    busy = threading.Lock()

    def predict(number: int) -> tuple[int, int]:
        assert busy.acquire(blocking=False)
        try:
            return number, threading.get_ident()
        finally:
            busy.release()

    async def ask() -> Any:
        return await asyncio.gather(*(predictor.submit(predict, number, 60) for number in range(20)))

    assert asyncio.run(ask()) == [(number, begun[0]) for number in range(20)]
    assert begun[0] != threading.get_ident()


def test_errors_come_back_to_who_asked() -> None:
    predictor = Predictor()

    def fail(_argument: Any = None) -> None:
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        predictor.call(fail)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        asyncio.run(predictor.submit(fail, None, 60))


def test_what_takes_too_long_is_given_up_and_what_waited_for_it_too() -> None:
    predictor = Predictor()
    end, calls = threading.Event(), []

    def hang(name: str) -> str:
        calls.append(name)
        end.wait(60)
        return name

    async def ask() -> Any:
        both = (predictor.submit(hang, "first", 0.2), predictor.submit(hang, "second", 0.05))
        given_up = await asyncio.gather(*both, return_exceptions=True)
        return given_up, await predictor.submit(str, 3, 60)

    given_up, answer = asyncio.run(ask())
    end.set()
    assert [type(one) for one in given_up] == [asyncio.TimeoutError, asyncio.TimeoutError]
    assert answer == "3"
    assert calls == ["first"]
