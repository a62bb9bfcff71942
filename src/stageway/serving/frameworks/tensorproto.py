"""Tensors as ONNX writes them in JSON: ``{"dims": ["1", "10"], "dataType": 1, "rawData": BASE64}``."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

from stageway.serving import tensors
from stageway.serving.replies import BadRequestError

DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "object",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
LISTS = {"float32": "floatData", "float64": "doubleData", "int64": "int64Data", "object": "stringData"}
LISTS.update(uint32="uint64Data", uint64="uint64Data")
"""Where a tensor without ``rawData`` has its values, by dtype; ``int32Data`` for all others."""


def read(name: str, given: Any) -> Any:
    """Return the array that *given* writes; its bytes are little-endian, its text is UTF-8."""
    import numpy as np

    if not isinstance(given, dict):
        raise BadRequestError("the input {!r} is not an object with dims, dataType and rawData".format(name))
    # Both spellings are the format's own.
    given = {key.replace("_", "").lower(): value for key, value in given.items()}
    number = _natural(given.get("datatype"))
    if number not in DTYPES:
        raise BadRequestError("the input {!r} has the dataType {!r}, which is none".format(name, given.get("datatype")))
    dtype = DTYPES[number]
    dims = given.get("dims", [])
    shape = [_natural(length) for length in dims] if isinstance(dims, list) else [-1]
    if any(length < 0 for length in shape) or not tensors.possible(shape):
        raise BadRequestError("the input {!r} has the dims {!r}, which are no lengths".format(name, dims))
    if "rawdata" in given and dtype != "object":
        raw = _bytes(name, given["rawdata"])
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if len(raw) != size:
            sentence = "the input {!r} has {} bytes, its dims {} of {} need {}"
            raise BadRequestError(sentence.format(name, len(raw), shape, dtype, size))
        return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
    values = _values(name, given, dtype)
    if len(values) != math.prod(shape):
        sentence = "the input {!r} has {} values, its dims {} need {}"
        raise BadRequestError(sentence.format(name, len(values), shape, math.prod(shape)))
    return values.reshape(shape)


def write(array: Any) -> "dict[str, Any]":
    """Return *array* in this form."""
    import numpy as np

    found = np.ascontiguousarray(array)
    dims = [str(length) for length in np.shape(array)]
    if found.dtype.kind in "OSU":
        texts = [one if isinstance(one, bytes) else str(one).encode() for one in found.ravel()]
        return {"dims": dims, "dataType": NUMBERS["object"], "stringData": [_text(one) for one in texts]}
    raw = found.astype(found.dtype.newbyteorder("<"), copy=False).tobytes()
    return {"dims": dims, "dataType": NUMBERS[found.dtype.name], "rawData": _text(raw)}


def _values(name: str, given: "dict[str, Any]", dtype: str) -> Any:
    import numpy as np

    key = LISTS.get(dtype, "int32Data")
    values = given.get(key.lower())
    if not isinstance(values, list):
        raise BadRequestError("the input {!r} has neither rawData nor {}".format(name, key))
    if dtype == "object":
        found = np.empty(len(values), dtype=object)
        found[:] = [_decoded(name, _bytes(name, one)) for one in values]
        return found
    try:
        if dtype == "float16":
            # Of this type the list holds the bits.
            bits = np.array(values, dtype="uint16").view("float16")
            if bits.ndim == 1:
                return bits
        # Whole numbers may be text, since JSON's own hold 53 bits.
        numbers = [int(one) if isinstance(one, str) and not dtype.startswith("float") else one for one in values]
        found = np.array(numbers, dtype=dtype)
        if found.ndim == 1 and (dtype.startswith("float") or [int(one) for one in found] == numbers):
            return found
    except (TypeError, ValueError, OverflowError):
        pass
    raise BadRequestError("the input {!r}: {} holds values that are not {}".format(name, key, dtype))


def _bytes(name: str, text: Any) -> bytes:
    try:
        plain = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (AttributeError, ValueError, binascii.Error):
        raise BadRequestError("the input {!r} holds {:.40} where base64 is needed".format(name, repr(text))) from None


def _decoded(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequestError("the input {!r} holds text that is not UTF-8".format(name)) from None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _natural(value: Any) -> int:
    """Return a length, which may be written as text; -1 for what is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62 else -1
