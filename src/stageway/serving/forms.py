"""The fields and files of an HTML form, from the body of a request: urlencoded, or in parts (multipart)."""

from __future__ import annotations

import io
import shutil
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import HTTP
from pathlib import Path
from typing import IO, Any, Union
from urllib.parse import parse_qsl

from stageway.serving.replies import BadRequestError

URLENCODED, PARTS = "application/x-www-form-urlencoded", "multipart/form-data"
TYPES = (URLENCODED, PARTS)
MOST_PARTS = 1000


class Upload:
    """One file of a form; it reads like an open file, and has the names of Flask's."""

    def __init__(self, name: str, filename: str, content_type: str, body: bytes) -> None:
        self.name, self.filename, self.content_type = name, filename, content_type
        self.mimetype = content_type.partition(";")[0].strip().lower()
        self.content_length = len(body)
        self.stream = io.BytesIO(body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __iter__(self) -> Any:
        return iter(self.stream)

    def save(self, target: "Union[str, Path, IO[bytes]]", buffer_size: int = 16384) -> None:
        """Write what has not been read yet to a path or an open file."""
        if not isinstance(target, (str, Path)):
            shutil.copyfileobj(self.stream, target, buffer_size)
            return
        with Path(target).open("wb") as file:
            shutil.copyfileobj(self.stream, file, buffer_size)

    def __repr__(self) -> str:
        return "<Upload {!r} ({!r})>".format(self.filename, self.content_type)


def parse(content_type: str, body: bytes) -> "list[tuple[str, Any]]":
    """Return the pairs of a form, text or ``Upload`` each; none for a body that is no form."""
    kind = _headers(b"Content-Type: " + content_type.encode("latin-1", "replace"))
    if kind.get_content_type() == URLENCODED and content_type:
        return list(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if kind.get_content_type() != PARTS:
        return []
    boundary = kind.get_param("boundary")
    if not boundary:
        raise BadRequestError("the content type {!r} has no boundary".format(content_type))
    return _parts(b"--" + str(boundary).encode("latin-1", "replace"), body)


def _parts(delimiter: bytes, body: bytes) -> "list[tuple[str, Any]]":
    """Cut *body* at its delimiters, which begin a line each; the last one ends with two dashes."""
    pieces = (b"\r\n" + body).split(b"\r\n" + delimiter, MOST_PARTS + 1)[1:]
    if len(pieces) > MOST_PARTS:
        raise BadRequestError("the form has more than {} parts".format(MOST_PARTS))
    if not pieces or not pieces[-1].startswith(b"--"):
        raise BadRequestError("the form is cut off: its last boundary is missing")
    return [_part(piece) for piece in pieces[:-1]]


def _part(piece: bytes) -> "tuple[str, Any]":
    head, found, content = piece.partition(b"\r\n\r\n")
    headers = _headers(head.lstrip(b" \t").lstrip(b"\r\n"))
    name = headers.get_param("name", header="content-disposition")
    if not found or not isinstance(name, str):
        raise BadRequestError("a part of the form has no name")
    filename = headers.get_filename()
    if filename is None:
        return name, content.decode(headers.get_content_charset() or "utf-8", "replace")
    return name, Upload(name, filename, str(headers.get("content-type", "application/octet-stream")), content)


def _headers(text: bytes) -> EmailMessage:
    return BytesHeaderParser(policy=HTTP).parsebytes(text + b"\r\n\r\n")
