"""The request as a raw HTTP script sees it: what scripts use of Flask's request, without Flask."""

from __future__ import annotations

import inspect
import io
import json
import sys
from http.cookies import CookieError, SimpleCookie
from typing import Any, Callable, Optional
from urllib.parse import parse_qsl, quote

from stageway.serving import forms
from stageway.serving.forms import Upload
from stageway.serving.multidict import Headers, MultiDict, case
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Call

MARK = "__rawhttp__"
MODULES = ("azureml.contrib.services.aml_request", "azureml_inference_server_http.api.aml_request")


class Request:
    """One request, whole in memory; the names and their meaning are those of Flask's request."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._parsed: "Optional[tuple[MultiDict, MultiDict]]" = None
        self.method = call.method
        self.path = call.path
        self.query_string = call.query.encode()
        self.headers = Headers((case(name), text) for name, text in call.headers().items())
        self.scheme = "http"
        self.remote_addr: Optional[str] = None
        self.content_type = self.headers.get("Content-Type")
        self.mimetype = (self.content_type or "").partition(";")[0].strip().lower()
        self.content_length = self.headers.get("Content-Length", type=int)
        self.is_json = self.mimetype == "application/json" or (
            self.mimetype.startswith("application/") and self.mimetype.endswith("+json")
        )
        self.args = MultiDict(parse_qsl(call.query, keep_blank_values=True))
        self.stream = io.BytesIO(call.body)

    @property
    def full_path(self) -> str:
        return "{}?{}".format(self.path, self._call.query)

    @property
    def host(self) -> str:
        return str(self.headers.get("Host", "localhost"))

    @property
    def host_url(self) -> str:
        return "{}://{}/".format(self.scheme, self.host)

    url_root = host_url

    @property
    def base_url(self) -> str:
        return self.host_url + quote(self.path.lstrip("/"), safe="/%")

    @property
    def url(self) -> str:
        return self.base_url + ("?" + self._call.query if self._call.query else "")

    @property
    def cookies(self) -> "dict[str, str]":
        found: SimpleCookie = SimpleCookie()
        try:
            found.load(self.headers.get("Cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in found.items()}

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """Return the body, as bytes unless *as_text*; of a form there is none left where *parse_form_data* is asked."""
        body = b"" if parse_form_data and self.mimetype in forms.TYPES else self._call.body
        return body.decode("utf-8", "replace") if as_text else body

    @property
    def data(self) -> bytes:
        return bytes(self.get_data(parse_form_data=True))

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body as JSON, ``None`` where its type says otherwise; what is not JSON is the client's mistake."""
        if not (force or self.is_json):
            return None
        try:
            return json.loads(self._call.body)
        except ValueError as error:
            if silent:
                return None
            raise BadRequestError("the body is not JSON: {}".format(error)) from None
        except RecursionError:
            if silent:
                return None
            raise BadRequestError("the body is nested too deeply") from None

    @property
    def json(self) -> Any:
        return self.get_json()

    @property
    def form(self) -> MultiDict:
        return self._form()[0]

    @property
    def files(self) -> MultiDict:
        return self._form()[1]

    @property
    def values(self) -> MultiDict:
        """The query's parameters and the form's fields in one."""
        return MultiDict(
            (name, value) for part in (self.args, self.form) for name in part for value in part.getlist(name)
        )

    def _form(self) -> "tuple[MultiDict, MultiDict]":
        if self._parsed is None:
            found = forms.parse(self.content_type or "", self._call.body)
            self._parsed = (
                MultiDict((name, one) for name, one in found if not isinstance(one, Upload)),
                MultiDict((name, one) for name, one in found if isinstance(one, Upload)),
            )
        return self._parsed

    def __repr__(self) -> str:
        return "<AMLRequest {!r} [{}]>".format(self.url, self.method)


def asked_by(run: Callable[..., Any]) -> bool:
    """Say whether *run* has the decorator ``rawhttp``: ours marks the function, v1's own packages their module."""
    while run is not None:
        if getattr(run, MARK, False):
            return True
        run = getattr(run, "__wrapped__", None)  # type: ignore[assignment]
    return any(getattr(sys.modules.get(name), "_rawHttpRequested", False) for name in MODULES)


def request(call: Call) -> Any:
    """Return what ``run`` is given: our AMLRequest, or Flask's request where v1's own package is installed."""
    for name in MODULES:
        kind = getattr(sys.modules.get(name), "AMLRequest", None)
        if inspect.isclass(kind):
            return kind(call) if issubclass(kind, Request) else _flask(call)
    return Request(call)


def _flask(call: Call) -> Any:
    import flask

    headers = call.headers()
    environ = {
        "REQUEST_METHOD": call.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": call.path,
        "QUERY_STRING": call.query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": call.content_type,
        "CONTENT_LENGTH": str(len(call.body)),
        "wsgi.input": io.BytesIO(call.body),
        "wsgi.url_scheme": "http",
    }
    own = ("content-type", "content-length")
    environ.update(
        {"HTTP_" + name.upper().replace("-", "_"): text for name, text in headers.items() if name.lower() not in own}
    )
    return flask.Request(environ)
