"""The request as a raw HTTP script sees it: what scripts use of Flask's request, without Flask."""

from __future__ import annotations

import inspect
import io
import json
import sys
from http.cookies import CookieError, SimpleCookie
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional
from urllib.parse import parse_qsl, quote

from stageway.serving import forms
from stageway.serving.forms import Upload
from stageway.serving.replies import BadRequestError
from stageway.serving.scorer import Call

MARK = "__rawhttp__"
MODULES = ("azureml.contrib.services.aml_request", "azureml_inference_server_http.api.aml_request")


class Headers:
    """HTTP headers: found in any case, kept in their order, and as often as they were added."""

    def __init__(self, pairs: "Iterable[tuple[str, str]]" = ()) -> None:
        self._pairs = [(str(name), str(text)) for name, text in pairs]

    def get(self, name: str, default: Any = None, type: Optional[Callable[[str], Any]] = None) -> Any:
        found = next((text for known, text in self._pairs if known.lower() == name.lower()), None)
        return default if found is None else _typed(found, default, type)

    def getlist(self, name: str) -> "list[str]":
        return [text for known, text in self._pairs if known.lower() == name.lower()]

    get_all = getlist

    def add(self, name: str, value: Any) -> None:
        """Add one header beside those of the same name."""
        self._pairs.append((str(name), str(value)))

    def __setitem__(self, name: str, value: Any) -> None:
        at = next((at for at, (known, _) in enumerate(self._pairs) if known.lower() == name.lower()), len(self._pairs))
        kept = [(known, text) for known, text in self._pairs if known.lower() != name.lower()]
        self._pairs = [*kept[:at], (name, str(value)), *kept[at:]]

    set = __setitem__

    def __delitem__(self, name: str) -> None:
        self._pairs = [(known, text) for known, text in self._pairs if known.lower() != name.lower()]

    def setdefault(self, name: str, value: Any) -> str:
        if name not in self:
            self[name] = value
        return str(self[name])

    def update(self, others: Any = (), **named: Any) -> None:
        for name, value in [*(others.items() if hasattr(others, "items") else others), *named.items()]:
            self[name] = value

    extend = update

    def __getitem__(self, name: str) -> str:
        found = self.getlist(name)
        if not found:
            raise KeyError(name)
        return found[0]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.getlist(name))

    def keys(self) -> "list[str]":
        return [name for name, _ in self._pairs]

    def values(self) -> "list[str]":
        return [text for _, text in self._pairs]

    def items(self) -> "list[tuple[str, str]]":
        return list(self._pairs)

    def __iter__(self) -> "Iterator[tuple[str, str]]":
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return "Headers({!r})".format(self._pairs)


class MultiDict(Dict[str, Any]):
    """Names with one or more values: a name gives its first, ``getlist`` all of them."""

    def __init__(self, pairs: "Iterable[tuple[str, Any]]" = ()) -> None:
        self._lists: "dict[str, list[Any]]" = {}
        for name, value in pairs:
            self._lists.setdefault(name, []).append(value)
        super().__init__((name, values[0]) for name, values in self._lists.items())

    def get(self, name: str, default: Any = None, type: Optional[Callable[[Any], Any]] = None) -> Any:
        return _typed(self[name], default, type) if name in self else default

    def getlist(self, name: str) -> "list[Any]":
        return list(self._lists.get(name, ()))

    def lists(self) -> "Iterator[tuple[str, list[Any]]]":
        return iter([(name, list(values)) for name, values in self._lists.items()])

    def to_dict(self, flat: bool = True) -> "dict[str, Any]":
        return dict(self) if flat else {name: list(values) for name, values in self._lists.items()}


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


def cased(headers: Mapping[str, str]) -> "dict[str, str]":
    """Return *headers* with names in the case that v1 gave them."""
    return {case(name): text for name, text in headers.items()}


def case(name: str) -> str:
    """Return a header's name as v1 wrote it, ``Content-Type``."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _typed(value: Any, default: Any, kind: Optional[Callable[[Any], Any]]) -> Any:
    if kind is None:
        return value
    try:
        return kind(value)
    except (TypeError, ValueError):
        return default
