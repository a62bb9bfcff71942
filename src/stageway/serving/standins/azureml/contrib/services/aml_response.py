"""Stands in for ``azureml.contrib.services.aml_response``: a whole HTTP reply, made by the script."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from stageway.serving.multidict import Headers
from stageway.serving.replies import dumps


class AMLResponse:
    """A reply of *message* (bytes and text as they are, anything as JSON if *json_str*) with its status and headers.

    A comma in a value of *response_headers* makes one header of each part. *run_function_failed* is told to the
    client in ``x-ms-run-function-failed``.
    """

    def __init__(
        self,
        message: Any,
        status_code: int,
        response_headers: "Optional[Mapping[str, Any]]" = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        kind = "application/json" if json_str else "text/html; charset=utf-8"
        self.headers = Headers([("Content-Type", kind)])
        for name, text in (response_headers or {}).items():
            values = [part.strip() for part in str(text).split(",")]
            self.headers[name] = values[0]
            for value in values[1:]:
                self.headers.add(name, value)
        self.status_code = int(status_code)
        self.run_function_failed = run_function_failed
        self.set_data(dumps(message) if json_str else message)

    @property
    def content_type(self) -> Optional[str]:
        found: Optional[str] = self.headers.get("Content-Type")
        return found

    @content_type.setter
    def content_type(self, value: str) -> None:
        self.headers["Content-Type"] = value

    @property
    def mimetype(self) -> str:
        return (self.content_type or "").partition(";")[0].strip().lower()

    def get_data(self, as_text: bool = False) -> Any:
        return self._body.decode() if as_text else self._body

    def set_data(self, value: Any) -> None:
        """Replace the body; ``TypeError`` for what is neither bytes nor text."""
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, (bytes, bytearray, memoryview)):
            kind = type(value).__name__
            raise TypeError("AMLResponse takes bytes or text, not {}; json_str=True writes JSON".format(kind))
        self._body = bytes(value)

    data = property(get_data, set_data)

    def set_cookie(self, key: str, value: str = "", **attributes: Any) -> None:
        """Add a ``Set-Cookie`` header; *attributes* as Flask names them, such as ``max_age`` and ``httponly``."""
        from http.cookies import SimpleCookie

        cookie: "SimpleCookie" = SimpleCookie()
        cookie[key] = value
        cookie[key]["path"] = "/"
        for name, setting in attributes.items():
            if setting is not None and setting is not False:
                cookie[key][name.replace("_", "-")] = setting
        self.headers.add("Set-Cookie", cookie[key].OutputString())
