"""The bytes of the Open Inference Protocol, there and back, and every mistake in one sentence."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stageway.serving import tensors, v2_wire
from stageway.serving.replies import BadRequestError

MOST = 10_000
MODEL = ("diabetes", "3")
BOMB = gzip.compress(bytes(5_000_000), mtime=0)
ONE = {"name": "x", "datatype": "FP64", "shape": [2], "data": [1.5, 2]}


def asked(document: Any, rest: bytes = b"", **headers: str) -> v2_wire.Asked:
    head = json.dumps(document).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    if rest:
        named.setdefault(v2_wire.LENGTH, str(len(head)))
    return v2_wire.decode(head + rest, named, MOST)


def binary(size: Any, **other: Any) -> Any:
    return {
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": size}, **other}]
    }


@pytest.mark.parametrize("kind", [kind for kind in tensors.DTYPES if kind != "BYTES"])
@pytest.mark.parametrize("nested", [False, True])
def test_json_of_every_datatype(kind: str, nested: bool) -> None:
    data = np.array([[1, 0, 1], [0, 1, 1]], dtype=tensors.DTYPES[kind])
    sent = data.tolist() if nested else data.ravel().tolist()
    found = asked({"inputs": [{"name": "x", "datatype": kind, "shape": [2, 3], "data": sent}]}).tensors["x"]
    assert found.dtype == data.dtype
    np.testing.assert_array_equal(found, data)


def test_large_whole_numbers_keep_their_digits() -> None:
    data = [1, 2**64 - 1]
    assert asked(one(datatype="UINT64", data=data)).tensors["x"].tolist() == data


def test_texts_come_as_bytes_from_json_and_from_bytes() -> None:
    one = {"name": "x", "datatype": "BYTES", "shape": [2, 1]}
    packed = b"".join(struct.pack("<I", len(text)) + text for text in (b"", "ä".encode()))
    plain = asked({"inputs": [{**one, "data": [[""], ["ä"]]}]}).tensors["x"]
    bare = asked({"inputs": [{**one, "parameters": {"binary_data_size": len(packed)}}]}, packed).tensors["x"]
    assert plain.tolist() == bare.tolist() == [[b""], ["ä".encode()]]
    assert tensors.text(plain).tolist() == [[""], ["ä"]]


@given(
    data=st.sampled_from([kind for kind in tensors.DTYPES if kind != "BYTES"]).flatmap(
        lambda kind: arrays.arrays(tensors.DTYPES[kind], arrays.array_shapes(min_side=0, max_dims=3, max_side=4))
    ),
    wanted=st.booleans(),
)
def test_what_a_model_gives_is_what_a_client_reads(data: Any, wanted: bool) -> None:
    """The reply, read as a request, holds the same bits; JSON has no NaN, so bytes alone keep those."""
    if not wanted and data.dtype.kind == "f":
        data = np.nan_to_num(data, posinf=1, neginf=-1)
    request = asked({"inputs": [ONE], "parameters": {"binary_data_output": wanted}})
    reply = v2_wire.encode(request, MODEL, {"y": data})
    headers = dict(reply.headers)
    document = json.loads(reply.body[: int(headers.get(v2_wire.LENGTH, len(reply.body)))])
    document["inputs"] = document.pop("outputs")
    head = json.dumps(document).encode()
    rest = reply.body[int(headers[v2_wire.LENGTH]) :] if wanted else b""
    found = v2_wire.decode(head + rest, {v2_wire.LENGTH: str(len(head))}, MOST).tensors["y"]
    assert (found.dtype, found.shape) == (data.dtype, data.shape)
    assert found.tobytes() == data.tobytes()


def test_each_output_says_how_it_is_wanted() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}, {"name": "c", "parameters": {}}]
    request = asked({"id": "7", "inputs": [ONE], "outputs": outputs, "parameters": {"binary_data_output": True}})
    assert (request.id, request.outputs) == ("7", ("a", "b", "c"))
    assert [request.as_bytes(name) for name in "abc"] == [True, False, True]
    reply = v2_wire.encode(request, MODEL, {"a": np.array(["ä", b"\xff"], dtype=object), "b": np.array([True])})
    length = int(dict(reply.headers)[v2_wire.LENGTH])
    assert reply.content_type == "application/octet-stream"
    assert json.loads(reply.body[:length]) == {
        "model_name": "diabetes",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "a", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
            {"name": "b", "datatype": "BOOL", "shape": [1], "data": [True]},
        ],
    }
    assert reply.body[length:] == b"\2\0\0\0\xc3\xa4\1\0\0\0\xff"


@pytest.mark.parametrize(
    ("pack", "encoding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (bytes, "identity")]
)
def test_a_packed_body_is_unpacked(pack: Any, encoding: str) -> None:
    body = pack(json.dumps({"inputs": [ONE]}).encode())
    assert v2_wire.decode(body, {"content-encoding": encoding}, MOST).tensors["x"].tolist() == [1.5, 2]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "sentence"),
    [
        (b"{}", "br", 415, "the content encoding 'br' is not known; send gzip, deflate or none"),
        (b"{}", "gzip", 400, "the body is not gzip, as its content encoding says"),
        (gzip.compress(b"{}", mtime=0)[:-3], "gzip", 400, "the gzip body is not complete, or has bytes after its end"),
        (zlib.compress(b"{}") + b"x", "deflate", 400, "the deflate body is not complete, or has bytes after its end"),
        (BOMB, "gzip", 413, "the body is larger than the 10000 bytes this service takes"),
    ],
)
def test_a_badly_packed_body_is_refused(body: bytes, encoding: str, status: int, sentence: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        v2_wire.decode(body, {"content-encoding": encoding}, MOST)
    assert (refused.value.status, refused.value.message) == (status, sentence)


def one(**other: Any) -> Any:
    return {"inputs": [{**ONE, **other}]}


BAD = [
    ([], "the body is not a JSON object"),
    ({}, "'inputs' is not a list"),
    ({"inputs": []}, "'inputs' is empty"),
    ({"inputs": [1]}, "an input is not a JSON object"),
    ({"inputs": [ONE], "id": 7}, "'id' is not text"),
    ({"inputs": [ONE], "id": "\ud800"}, "'id' is not text"),
    ({"inputs": [ONE], "parameters": []}, "'parameters' of the request is not a JSON object"),
    ({"inputs": [ONE], "outputs": {}}, "'outputs' is not a list"),
    ({"inputs": [ONE], "outputs": [{}]}, "an output has no name"),
    ({"inputs": [ONE, ONE]}, "the input 'x' is there twice"),
    (one(name=""), "an input has no name"),
    (one(datatype="BF16"), "the input 'x' is BF16, which is not offered; send FP32"),
    (
        one(datatype=["FP64"]),
        "the input 'x' has the datatype ['FP64']; known are BOOL, INT8, INT16, INT32, INT64, UINT8, ",
    ),
    (one(shape=None), "the input 'x' has the shape None, not a list of lengths"),
    (one(shape=[-1]), "the input 'x' has the shape [-1], not a list of lengths"),
    (one(shape=[2.0]), "the input 'x' has the shape [2.0], not a list of lengths"),
    (one(shape=[True]), "the input 'x' has the shape [True], not a list of lengths"),
    (one(shape=[10**30]), "the input 'x' has the shape [1e+30], not a list of lengths"),
    (one(shape=[1] * 40), "the input 'x' has the shape [1, 1"),
    (
        one(shape=[2**40, 2**40]),
        "the input 'x' has 2 elements; the shape [1099511627776, 1099511627776] has 1208925819614",
    ),
    (one(shape=[3]), "the input 'x' has 2 elements; the shape [3] has 3"),
    (one(datatype=["x" * 10_000]), "the input 'x' has the datatype ['xxxxxxxxxxxx...xxxxxxxxxxxxx']; known are"),
    (one(name="x" * 300), "an input has a name of more than 255 characters"),
    (one(data=None), "the input 'x' has no data"),
    (one(data="12"), "the data of 'x' is not a list"),
    (one(data=[[1], [1, 2]]), "the data of 'x' is not a list of equally long lists of numbers"),
    (one(data=[1, "2"]), "the data of 'x' holds what is not FP64"),
    (one(data=[1, None]), "the data of 'x' holds what is not FP64"),
    (one(data=[True, False]), "the data of 'x' holds what is not FP64"),
    (one(datatype="BOOL", data=[1, 0]), "the data of 'x' holds what is not BOOL"),
    (one(datatype="INT64", data=[1.5, 2]), "the data of 'x' holds what is not INT64"),
    (one(datatype="INT8", data=[1, 128]), "the data of 'x' holds a number outside INT8"),
    (one(datatype="UINT32", data=[1, -1]), "the data of 'x' holds a number outside UINT32"),
    (one(datatype="INT64", data=[1, 2**63]), "the data of 'x' holds a number outside INT64"),
    (one(datatype="UINT64", data=[1, 2**64 - 1, -1], shape=[3]), "the data of 'x' holds a number outside UINT64"),
    (one(datatype="UINT64", data=[1, 2**70]), "the data of 'x' holds what is not UINT64"),
    (one(datatype="BYTES", data=["a", 1]), "the data of 'x' holds what is not BYTES: 1"),
    (one(datatype="BYTES", data=["a"]), "the input 'x' has 1 elements; the shape [2] has 2"),
    (one(parameters={"shared_memory_region": "r"}), "the input 'x' is in shared memory, which is not offered"),
    (one(parameters={"binary_data_size": 16}), "the input 'x' has both data and binary_data_size"),
    (binary("16"), "the input 'x' has the binary_data_size '16', not a count"),
    (binary(-1), "the input 'x' has the binary_data_size -1, not a count"),
    (
        binary(16),
        "the input 'x' has 16 bytes of data, 0 follow the JSON (the header inference-header-content-length says",
    ),
    (
        {"inputs": [ONE], "outputs": [{"name": "y", "parameters": {"classification": 2}}]},
        "the output 'y' asks for classification, which is not offered",
    ),
]


@pytest.mark.parametrize(("document", "sentence"), BAD)
def test_a_mistake_is_one_sentence(document: Any, sentence: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        asked(document)
    assert refused.value.status == 400
    assert refused.value.message.startswith(sentence)


@pytest.mark.parametrize(
    ("document", "rest", "length", "sentence"),
    [
        (binary(16), bytes(15), None, "the input 'x' has 16 bytes of data, 15 follow the JSON (the header "),
        (binary(15), bytes(15), None, "the input 'x' has 15 bytes; FP64 of the shape [2] has 16"),
        (binary(16), bytes(17), None, "1 bytes follow the data of the last input"),
        (binary(16), bytes(16), "0", "the body is empty; send a JSON object"),
        (binary(16), bytes(16), "9999", "the header inference-header-content-length is '9999', the body has "),
        (binary(16), bytes(16), "-1", "the header inference-header-content-length is '-1', the body has "),
        (binary(16), bytes(16), "²", "the header inference-header-content-length is '²', the body has "),
        (binary(5, datatype="BYTES"), b"\2\0\0\0a", None, "the input 'x' ends within element 0"),
        (binary(6, datatype="BYTES"), b"\1\0\0\0a\1", None, "the input 'x' ends within element 1"),
        (binary(5, datatype="BYTES"), b"\1\0\0\0a", None, "the input 'x' has 1 elements; the shape [2] has 2"),
    ],
)
def test_bytes_that_do_not_fit_are_one_sentence(document: Any, rest: bytes, length: Any, sentence: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        asked(document, rest, **({"inference_header_content_length": length} if length is not None else {}))
    assert refused.value.message.startswith(sentence)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_are_more_than_a_mistake(body: bytes, length: int) -> None:
    with pytest.raises(BadRequestError):
        v2_wire.decode(body, {v2_wire.LENGTH: str(length)}, MOST)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("BYTES"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(ONE)), inner, max_size=4),
        max_leaves=8,
    ),
    st.sampled_from(["name", "datatype", "shape", "data", "parameters", "extra"]),
    st.sampled_from(list(tensors.DTYPES)),
)
def test_a_wrong_part_is_a_mistake_or_does_no_harm(value: Any, part: str, kind: str) -> None:
    try:
        found = asked({"inputs": [{**ONE, "datatype": kind, part: value}]})
    except BadRequestError:
        return
    (array,) = found.tensors.values()
    assert tensors.datatype(array.dtype) == (value if part == "datatype" else kind)


DEEP = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":' + b"[" * 1000 + b'"a"' + b"]" * 1000 + b"}]}"


@pytest.mark.parametrize("kind", ["FP64", "BYTES"])
@pytest.mark.parametrize("shape", [[0, 2**62], [0, 2**62, 4], [2**40, 0], [1] * 33])
def test_a_shape_that_no_array_can_have_is_the_clients_mistake(kind: str, shape: list[int]) -> None:
    one = {"name": "x", "datatype": kind, "shape": shape}
    with pytest.raises(BadRequestError, match="has the shape"):
        asked({"inputs": [{**one, "data": []}]})
    with pytest.raises(BadRequestError, match="has the shape"):
        asked({"inputs": [{**one, "parameters": {"binary_data_size": 0}}]})


def test_text_may_be_nested_as_deeply_as_json_may() -> None:
    assert v2_wire.decode(DEEP, {}, MOST).tensors["x"].tolist() == [b"a"]


def test_a_length_of_thousands_of_digits_is_the_clients_mistake() -> None:
    with pytest.raises(BadRequestError, match="the body has"):
        v2_wire.decode(json.dumps({"inputs": [ONE]}).encode(), {v2_wire.LENGTH: "9" * 5000}, MOST)


@pytest.mark.parametrize("kind", ["FP64", "INT64", "BOOL"])
@pytest.mark.parametrize("rest", [["a"], [1], [[1]]])
def test_text_among_numbers_takes_no_room(kind: str, rest: list[Any], frugal: Any) -> None:
    data = rest * 10_000 + ["x" * 20_000]
    with frugal(), pytest.raises(BadRequestError, match=f"holds what is not {kind}"):
        v2_wire.decode(json.dumps({"inputs": [{**ONE, "datatype": kind, "data": data}]}).encode(), {}, 10**6)
