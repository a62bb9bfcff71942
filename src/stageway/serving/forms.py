"""The fields and files of an HTML form, from the body of a request: urlencoded, or in parts (multipart)."""

from __future__ import annotations

import codecs
import io
import re
import shutil
from pathlib import Path
from typing import IO, Any, Union
from urllib.parse import parse_qsl, unquote

from stageway.serving.replies import BadRequestError

URLENCODED, PARTS = "application/x-www-form-urlencoded", "multipart/form-data"
TYPES = (URLENCODED, PARTS)
MOST_PARTS = 1000
LONGEST_HEAD = 8192
PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))\s*|;[^;"]*')
CHARSETS = ("utf-8", "utf-16", "ascii", "iso8859-", "cp125", "koi8-", "shift_jis", "euc_", "gb", "big5")
"""How the names of the codecs begin that parts may be in; Python knows others, which are no text or slow."""


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
    kind = content_type.partition(";")[0].strip().lower()
    if kind == URLENCODED:
        return list(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if kind != PARTS:
        return []
    boundary = _value(content_type)[1].get("boundary")
    if not boundary:
        raise BadRequestError("the content type {!r} has no boundary".format(content_type))
    return _parts(b"--" + boundary.encode("latin-1", "replace"), body)


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
    if len(head) > LONGEST_HEAD:
        raise BadRequestError("the headers of a part of the form are longer than {} bytes".format(LONGEST_HEAD))
    headers = _headers(head)
    _, disposition = _value(headers.get("content-disposition", ""))
    if not found or "name" not in disposition:
        raise BadRequestError("a part of the form has no name")
    kind = headers.get("content-type", "application/octet-stream")
    if "filename" in disposition:
        return disposition["name"], Upload(disposition["name"], disposition["filename"], kind, content)
    return disposition["name"], content.decode(_charset(_value(kind)[1].get("charset", "utf-8")), "replace")


def _headers(head: bytes) -> "dict[str, str]":
    """Return the headers of a part; a line that begins with a blank goes on with the one before."""
    lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip().lower(): text.strip() for name, _, text in pairs}


def _value(text: str) -> "tuple[str, dict[str, str]]":
    """Return a header's value without its parameters, and these; of ``name*`` the text that it encodes.

    Each character is looked at once or twice, and nothing calls itself, whatever a client writes.
    """
    kind, semicolon, rest = text.partition(";")
    rest, at = semicolon + rest, 0
    found: "dict[str, str]" = {}
    while at < len(rest):
        match = PARAMETER.match(rest, at)
        if match is None:
            raise BadRequestError("the header value {:.80} cannot be read".format(repr(text)))
        name, quoted, plain = match.groups()
        if name:
            found[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = match.end()
    for name in [name for name in found if name.endswith("*")]:
        charset, _, encoded = found[name].partition("'")
        found[name[:-1]] = unquote(encoded.partition("'")[2], _charset(charset or "utf-8"), "replace")
    return kind.strip().lower(), found


def _charset(name: str) -> str:
    try:
        known = codecs.lookup(name).name
    except (LookupError, ValueError):
        known = ""
    if not known.startswith(CHARSETS):
        raise BadRequestError("the charset {:.40} is not known; send utf-8".format(repr(name)))
    return known
