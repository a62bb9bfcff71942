"""The bytes of the Open Inference Protocol: a request to ``/infer`` as named arrays, and named arrays as its reply.

Tensors are JSON (``data``, flat or nested), or bytes that follow the JSON, whose length is then in the header
``Inference-Header-Content-Length`` (the binary tensor data extension).
"""

from __future__ import annotations

import math
import reprlib
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional

import orjson

from stageway.serving import replies, tensors
from stageway.serving.replies import BadRequestError, Reply

LENGTH = "inference-header-content-length"
ENCODINGS = ("gzip", "deflate")
BINARY = "application/octet-stream"
GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
PREFIX = struct.Struct("<I")
LONGEST_NAME = 255
MOST = 2**63 - 1
MOST_DIGITS = 20
WHOLE = "iu"
KINDS = {"BOOL": "b", "FP16": "iuf", "FP32": "iuf", "FP64": "iuf"}
"""What JSON may hold for a datatype, in numpy's letters; whole numbers for the others."""


@dataclass(frozen=True)
class Asked:
    """One request, understood; *binary* are the outputs that are wanted as bytes, where they say so themselves."""

    id: str
    parameters: "dict[str, Any]"
    tensors: "dict[str, Any]"
    outputs: "tuple[str, ...]" = ()
    binary: "dict[str, bool]" = field(default_factory=dict)

    def as_bytes(self, output: str) -> bool:
        return self.binary.get(output, self.parameters.get("binary_data_output") is True)


def decode(body: bytes, headers: "Mapping[str, str]", most: int) -> Asked:
    """Return what *body* asks for; unpacked it may have *most* bytes."""
    body = _unpacked(body, headers.get("content-encoding", ""), most)
    length = headers.get(LENGTH)
    if length is None:
        document, rest = body, b""
    else:
        digits = length.isascii() and length.isdigit() and len(length) < MOST_DIGITS
        if not digits or int(length) > len(body):
            sentence = "the header {} is {}, the body has {} bytes"
            raise BadRequestError(sentence.format(LENGTH, reprlib.repr(length), len(body)))
        document, rest = body[: int(length)], body[int(length) :]
    asked = _object(replies.loads(document), "the body")
    name = asked.get("id", "")
    if not isinstance(name, str) or not _is_text(name):
        raise BadRequestError("'id' is not text")
    outputs = [_object(one, "an output") for one in _list(asked.get("outputs", []), "'outputs'")]
    names = tuple(_name(one, "an output") for one in outputs)
    binary = {}
    for one, output in zip(outputs, names):
        parameters = _parameters(one, output)
        if parameters.get("classification"):
            raise BadRequestError("the output {!r} asks for classification, which is not offered".format(output))
        if "binary_data" in parameters:
            binary[output] = parameters["binary_data"] is True
    return Asked(name, _parameters(asked, "the request"), _inputs(asked, rest), names, binary)


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return body
    if kind not in ENCODINGS:
        sentence = "the content encoding {!r} is not known; send {} or none"
        raise BadRequestError(sentence.format(encoding, ", ".join(ENCODINGS)), status=415)
    unpacking = zlib.decompressobj(GZIP_OR_ZLIB)
    try:
        found = unpacking.decompress(body, most + 1)
    except zlib.error:
        raise BadRequestError("the body is not {}, as its content encoding says".format(kind)) from None
    if len(found) > most:
        sentence = "the body is larger than the {} bytes this service takes"
        raise BadRequestError(sentence.format(most), status=413)
    if not unpacking.eof or unpacking.unused_data:
        raise BadRequestError("the {} body is not complete, or has bytes after its end".format(kind))
    return found


def _inputs(asked: "dict[str, Any]", rest: bytes) -> "dict[str, Any]":
    found: "dict[str, Any]" = {}
    at = 0
    for given in _list(asked.get("inputs"), "'inputs'"):
        one = _object(given, "an input")
        name = _name(one, "an input")
        if name in found:
            raise BadRequestError("the input {!r} is there twice".format(name))
        kind, shape = _datatype(one, name), _shape(one, name)
        size = _binary_size(one, name)
        if size is None:
            found[name] = _of_json(one.get("data"), name, kind, shape)
            continue
        if at + size > len(rest):
            sentence = "the input {!r} has {} bytes of data, {} follow the JSON (the header {} says where it ends)"
            raise BadRequestError(sentence.format(name, size, len(rest) - at, LENGTH))
        found[name] = _of_bytes(rest[at : at + size], name, kind, shape)
        at += size
    if not found:
        raise BadRequestError("'inputs' is empty")
    if at < len(rest):
        raise BadRequestError("{} bytes follow the data of the last input".format(len(rest) - at))
    return found


def _binary_size(one: "dict[str, Any]", name: str) -> "Optional[int]":
    parameters = _parameters(one, name)
    if "shared_memory_region" in parameters:
        raise BadRequestError("the input {!r} is in shared memory, which is not offered".format(name))
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadRequestError(
            "the input {!r} has the binary_data_size {}, not a count".format(name, reprlib.repr(size))
        )
    if "data" in one:
        raise BadRequestError("the input {!r} has both data and binary_data_size".format(name))
    return size


def _of_bytes(data: bytes, name: str, kind: str, shape: "tuple[int, ...]") -> Any:
    import numpy as np

    if kind == "BYTES":
        return _array_of(_texts(data, name), name, shape)
    dtype = np.dtype(tensors.DTYPES[kind])
    if len(data) != math.prod(shape) * dtype.itemsize:
        sentence = "the input {!r} has {} bytes; {} of the shape {} has {}"
        raise BadRequestError(sentence.format(name, len(data), kind, list(shape), math.prod(shape) * dtype.itemsize))
    # A copy, since a model may write into what it gets.
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _texts(data: bytes, name: str) -> "list[bytes]":
    """Return the elements of ``BYTES``: each is its length in four bytes, then as many bytes."""
    found: "list[bytes]" = []
    at = 0
    while at < len(data):
        end = at + PREFIX.size
        size = PREFIX.unpack_from(data, at)[0] if end <= len(data) else 0
        if end + size > len(data):
            raise BadRequestError("the input {!r} ends within element {}".format(name, len(found)))
        found.append(data[end : end + size])
        at = end + size
    return found


def _of_json(data: Any, name: str, kind: str, shape: "tuple[int, ...]") -> Any:
    import numpy as np

    if data is None:
        raise BadRequestError("the input {!r} has no data".format(name))
    data = _list(data, "the data of {!r}".format(name))
    if kind == "BYTES":
        return _array_of(list(_flat(data, name)), name, shape)
    dtype = np.dtype(tensors.DTYPES[kind])
    try:
        found = _numbers(data, dtype)
    except (ValueError, OverflowError, RecursionError):
        raise BadRequestError("the data of {!r} is not a list of equally long lists of numbers".format(name)) from None
    if found is None:
        raise BadRequestError("the data of {!r} holds what is not {}".format(name, kind))
    if found.size != math.prod(shape):
        raise _miscounted(found.size, name, shape)
    if dtype.kind in WHOLE and found.size and found.dtype != dtype:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if int(found.min()) < least or int(found.max()) > most:
            raise BadRequestError("the data of {!r} holds a number outside {}".format(name, kind))
    with np.errstate(over="ignore"):
        return found.astype(dtype).reshape(shape)


def _numbers(data: "list[Any]", dtype: Any) -> Any:
    """Return *data* as an array whose numbers are of the kind of *dtype*; ``None`` when they are not."""
    import numpy as np

    if tensors.room(data):
        return None
    found = np.array(data)
    kinds = KINDS.get(tensors.NAMES[dtype.name], WHOLE)
    if not found.size or found.dtype.kind in kinds:
        return found
    if kinds == WHOLE and found.dtype.kind == "f":
        # Small and very large whole numbers together are floats to numpy, which loses digits.
        exact = np.array(data, dtype=object)
        return exact if all(type(one) is int for one in exact.ravel()) else None
    return None


def _flat(data: "list[Any]", name: str) -> "Iterator[bytes]":
    pending = [iter(data)]
    while pending:
        for one in pending[-1]:
            if isinstance(one, str):
                yield one.encode("utf-8", "surrogatepass")
            elif isinstance(one, list):
                pending.append(iter(one))
                break
            else:
                raise BadRequestError("the data of {!r} holds what is not BYTES: {}".format(name, reprlib.repr(one)))
        else:
            pending.pop()


def _array_of(elements: "list[bytes]", name: str, shape: "tuple[int, ...]") -> Any:
    import numpy as np

    if len(elements) != math.prod(shape):
        raise _miscounted(len(elements), name, shape)
    found = np.empty(len(elements), dtype=object)
    found[:] = elements
    return found.reshape(shape)


def _miscounted(count: int, name: str, shape: "tuple[int, ...]") -> BadRequestError:
    sentence = "the input {!r} has {} elements; the shape {} has {}"
    return BadRequestError(sentence.format(name, count, list(shape), math.prod(shape)))


def _datatype(one: "dict[str, Any]", name: str) -> str:
    kind = one.get("datatype")
    if not isinstance(kind, str) or kind not in tensors.DTYPES:
        if kind == "BF16":
            raise BadRequestError("the input {!r} is BF16, which is not offered; send FP32".format(name))
        known = ", ".join(tensors.DTYPES)
        raise BadRequestError(
            "the input {!r} has the datatype {}; known are {}".format(name, reprlib.repr(kind), known)
        )
    return kind


def _shape(one: "dict[str, Any]", name: str) -> "tuple[int, ...]":
    shape = one.get("shape")
    whole = isinstance(shape, list) and all(type(length) is int and 0 <= length <= MOST for length in shape)
    if not isinstance(shape, list) or not whole or not shape or not tensors.possible(shape):
        raise BadRequestError(
            "the input {!r} has the shape {}, not a list of lengths".format(name, reprlib.repr(shape))
        )
    return tuple(shape)


def _is_text(value: str) -> bool:
    """Tell whether *value* can be sent back: JSON's escapes can say half a character."""
    return not any("\ud800" <= one <= "\udfff" for one in value)


def _name(one: "dict[str, Any]", what: str) -> str:
    name = one.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequestError("{} has no name".format(what))
    if len(name) > LONGEST_NAME:
        raise BadRequestError("{} has a name of more than {} characters".format(what, LONGEST_NAME))
    return name


def _parameters(one: "dict[str, Any]", name: str) -> "dict[str, Any]":
    return _object(one.get("parameters", {}), "'parameters' of {}".format(name))


def _object(value: Any, what: str) -> "dict[str, Any]":
    if not isinstance(value, dict):
        raise BadRequestError("{} is not a JSON object".format(what))
    return value


def _list(value: Any, what: str) -> "list[Any]":
    if not isinstance(value, list):
        raise BadRequestError("{} is not a list".format(what))
    return value


def encode(asked: Asked, model: "tuple[str, str]", given: "Mapping[str, Any]") -> Reply:
    """Return the reply of *model* (its name and version) that gave the arrays *given*."""
    outputs, parts = [], []
    for name, array in given.items():
        kind = tensors.datatype(array.dtype)
        one: "dict[str, Any]" = {"name": name, "datatype": kind, "shape": list(array.shape)}
        if asked.as_bytes(name):
            parts.append(_texts_written(array) if kind == "BYTES" else array.tobytes())
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = tensors.text(array).ravel().tolist() if kind == "BYTES" else array.ravel().tolist()
        outputs.append(one)
    document: "dict[str, Any]" = {"model_name": model[0], "model_version": model[1], "outputs": outputs}
    if asked.id:
        document["id"] = asked.id
    header = orjson.dumps(document)
    if not parts:
        return Reply(200, header)
    return Reply(200, b"".join([header, *parts]), BINARY, [(LENGTH, str(len(header)))])


def _texts_written(array: Any) -> bytes:
    found = []
    for one in array.ravel():
        data = one if isinstance(one, bytes) else str(one).encode()
        found += [PREFIX.pack(len(data)), data]
    return b"".join(found)
