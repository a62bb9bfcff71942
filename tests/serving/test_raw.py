"""The request of raw HTTP scripts, piece by piece: forms as clients write them, headers, cookies, addresses."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from stageway.serving import forms, raw
from stageway.serving.forms import Upload
from stageway.serving.multidict import Headers, MultiDict
from stageway.serving.raw import Request
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Call

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=10)
FIELDS = st.lists(st.tuples(NAMES, st.text(max_size=30)), max_size=5)
FILES = st.lists(st.tuples(NAMES, st.tuples(NAMES, st.binary(max_size=200), st.just("image/png"))), max_size=3)


@given(FIELDS, FILES)
def test_forms_come_back_as_a_client_wrote_them(fields: list[Any], files: list[Any]) -> None:
    body, content_type = encode_multipart_formdata([*fields, *files])
    found = forms.parse(content_type, body)
    assert [pair for pair in found if not isinstance(pair[1], Upload)] == fields
    uploads = [(name, one) for name, one in found if isinstance(one, Upload)]
    assert [(name, (one.filename, one.read(), one.content_type)) for name, one in uploads] == files


@given(st.binary(max_size=300))
def test_what_is_no_form_is_refused_or_empty(body: bytes) -> None:
    whole = b"--B" + body
    with contextlib.suppress(BadRequestError):
        found = forms.parse("multipart/form-data; boundary=B", whole)
        assert b"--B--" in whole
        assert all(isinstance(name, str) for name, _ in found)


def _part(head: bytes, content: bytes = b"x") -> Any:
    body = b"--B\r\n" + head + b"\r\n\r\n" + content + b"\r\n--B--\r\n"
    return forms.parse("multipart/form-data; boundary=B", body)


NAMED = b"Content-Disposition: form-data; name=a"


@pytest.mark.parametrize("charset", [b"bogus", b"undefined", b"base64", b"punycode", b"\xff", b"a" * 5000])
def test_a_charset_that_is_none_is_the_clients_mistake(charset: bytes) -> None:
    with pytest.raises(BadRequestError, match="charset"):
        _part(NAMED + b"\r\nContent-Type: text/plain; charset=" + charset)


def test_headers_of_a_part_are_read_in_one_go_and_only_so_many() -> None:
    assert _part(b"Content-Disposition: form-data; name=" + b"(" * 8000) == [("(" * 8000, "x")]
    assert _part(NAMED + b" ;" * 4000) == [("a", "x")]
    with pytest.raises(BadRequestError, match="longer than 8192 bytes"):
        _part(NAMED + b" ;" * 5000)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b'Content-Disposition: form-data; name="a \\"b\\" ; c"', 'a "b" ; c'),
        (b"content-disposition:form-data;\r\n name*=utf-8''%C3%A9", "é"),
        ('Content-Disposition: form-data; odd; name = "é"'.encode(), "é"),
    ],
)
def test_names_as_clients_write_them(head: bytes, name: str) -> None:
    assert _part(head) == [(name, "x")]
    (_, upload), *_ = _part(head + b"; filename=f.png\r\nContent-Type: image/png")
    assert (upload.name, upload.filename, upload.content_type) == (name, "f.png", "image/png")


def test_text_in_a_charset_of_its_own() -> None:
    assert _part(NAMED + b"\r\nContent-Type: text/plain; charset=Latin-1", b"\xe9") == [("a", "é")]


def test_json_that_is_nested_too_deeply_is_the_clients_mistake() -> None:
    request = Request(_call(body=b"[" * 100_000, content_type="application/json"))
    with pytest.raises(BadRequestError, match="nested too deeply"):
        request.get_json()


def _call(method: str = "POST", query: str = "", body: bytes = b"", **headers: str) -> Call:
    known = {name.replace("_", "-"): text for name, text in headers.items()}
    return Call(method, "/api/score", body, query, known.get("content-type", ""), lambda: known)


CALLS = [
    _call(
        query="a=1&a=2&b=&c=%20x", host="shop.example:8080", content_type="application/json", x_any="v", cookie="a=b"
    ),
    _call("GET", host="h"),
    _call(body=b"a=1&b=%C3%A9&a=3", host="h", content_type="application/x-www-form-urlencoded; charset=utf-8"),
    _call(body=b'{"a": [1]}', host="h", content_type="application/vnd.x+json"),
    _call(body=b"\xff\x00", host="h", content_type="text/plain"),
]
SEEN = [
    *["method", "path", "full_path", "url", "base_url", "host", "host_url", "url_root", "scheme", "query_string"],
    *["content_type", "mimetype", "is_json", "data", "remote_addr", "content_length"],
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.content_type}")
def test_a_request_is_what_flask_makes_of_it(call: Call) -> None:
    mine, flasks = Request(call), raw._flask(call)
    assert isinstance(flasks, flask.Request)
    for name in SEEN:
        theirs = getattr(flasks, name)
        if name == "content_type" and not theirs:
            theirs = None
        if name == "content_length":
            theirs = mine.content_length
        assert getattr(mine, name) == theirs, name
    for name in ("args", "form", "values"):
        assert getattr(mine, name).to_dict(flat=False) == getattr(flasks, name).to_dict(flat=False), name
    assert dict(mine.cookies) == dict(flasks.cookies)
    assert mine.headers.get("X-Any") == flasks.headers.get("x-any")
    assert mine.get_json(silent=True) == flasks.get_json(silent=True)


def test_headers_are_found_in_any_case_and_can_repeat() -> None:
    headers = Headers([("A", "1"), ("b", "2")])
    headers.add("a", 3)
    assert (headers["a"], headers.getlist("A"), headers.get("B", type=int)) == ("1", ["1", "3"], 2)
    headers["A"] = "4"
    headers.setdefault("c", "5")
    headers.setdefault("C", "6")
    headers.update({"B": "7"})
    assert headers.items() == [("A", "4"), ("B", "7"), ("c", "5")]
    assert dict(headers) == {"A": "4", "B": "7", "c": "5"}
    del headers["a"]
    assert "A" not in headers
    assert (headers.get("a", "none"), len(headers)) == ("none", 2)
    with pytest.raises(KeyError):
        headers["a"]


def test_names_with_several_values() -> None:
    values = MultiDict([("a", "1"), ("b", "x"), ("a", "2")])
    assert (values["a"], values.getlist("a"), values.get("b", 0, type=int), values.get("c", 9)) == (
        "1",
        ["1", "2"],
        0,
        9,
    )
    assert values.to_dict() == {"a": "1", "b": "x"}


def test_an_upload_is_saved(tmp_path: Path) -> None:
    upload = Upload("f", "a.bin", "x/y; z=1", b"\r\n\x00")
    upload.save(tmp_path / "a")
    upload.seek(0)
    upload.save(target := io.BytesIO())
    assert (tmp_path / "a").read_bytes() == target.getvalue() == b"\r\n\x00"
    assert upload.mimetype == "x/y"
