"""What is wrong with a reply, in sentences that name the place: compared, validated, read as error text. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from stageway.contract import Schema, describe, infer

MOST = 3
"""Differences that are said of one reply; the others are counted."""

TINY = 1e-12
"""Numbers this close to each other are equal, where a relative difference says nothing (an expected 0)."""

ERROR_KEYS = frozenset({"error", "errors", "exception", "traceback", "error_message", "errormessage"})

_RAISED = re.compile(r"Traceback \(most recent call last\)|^\s*(?:\w+\.)*[A-Z]\w*(?:Error|Exception)\b\s*(?:[:(]|$)")
"""What no result looks like, wherever it stands."""

_TEXT_OF_ERROR = re.compile(
    "|".join(
        (
            r"^\s*(?:an? )?(?:error|exception|failed|failure)\s*(?:[:!]|occurred)",
            r"got an unexpected keyword argument|missing \d+ required positional|takes \d+ positional arguments?",
            r"could not convert|cannot convert|invalid literal for|name '\w+' is not defined|not subscriptable",
            r"has no attribute '|object is not (?:callable|iterable)|unsupported operand|division by zero",
            r"index out of range|is out of bounds for|must be (?:str|real number)|not JSON serializable",
            r"Expecting (?:value|property name)|No such file or directory|not in index|are in the \[columns\]",
            r"Expected \dD array|Reshape your data|features?, but \w+ is expecting|instance is not fitted yet",
            r"shapes? .*not aligned|could not be broadcast|^'[^']*'$",
        )
    ),
    re.IGNORECASE,
)
"""How ``str(error)`` of Python, NumPy, pandas and scikit-learn reads; a key in quotes is that of ``KeyError``."""

_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(?P<name>\w+)'")


def error_text(reply: Any) -> str | None:
    """Return the error that a reply with status 200 tells instead of a result, or ``None``.

    Many entry scripts catch everything and return ``str(error)``, or an object with a key ``error``.
    """
    if isinstance(reply, str):
        inner = _decoded(reply)
        if inner is not None:
            return error_text(inner)
        return _short(reply) if _RAISED.search(reply) or _TEXT_OF_ERROR.search(reply) else None
    if isinstance(reply, Mapping):
        for key, value in reply.items():
            if str(key).lower().replace("-", "_") in ERROR_KEYS and value not in (None, False, "", 0, [], {}):
                return f"{key}: {_short(value)}"
        raised = (value for value in reply.values() if isinstance(value, str) and _RAISED.search(value))
        return next((_short(text) for text in raised), None)
    return error_text(reply[0]) if isinstance(reply, list) and len(reply) == 1 else None


def missing_parameter(text: str) -> str | None:
    """Return the parameter that a schema names and ``run`` lacks, if that is what *text* (a log, a reply) tells."""
    found = _UNEXPECTED.search(text)
    return found["name"] if found is not None else None


def text_instead(reply: Any, promised: Schema | None) -> str | None:
    """Return the reply when it is text where the promised schema has another type: ``str(error)``, most likely."""
    if promised is None or not isinstance(reply, str) or _same_kind(reply, promised):
        return None
    return _short(reply)


def invalid(reply: Any, schema: Schema | None) -> list[str]:
    """Say where *reply* does not keep the contract's *schema*."""
    if schema is None:
        return []
    if not _same_kind(reply, schema):
        return [f"reply is {describe(infer(reply))}, and the contract says {describe(schema)}: {_short(reply)}"]
    errors = sorted(Draft202012Validator(schema).iter_errors(reply), key=lambda error: list(map(str, error.path)))
    return _capped([f"reply{_path(error.absolute_path)}: {_line(error.message)}" for error in errors])


def differences(expected: Any, reply: Any, tolerance: float) -> list[str]:
    """Say where *reply* is not what was expected: numbers beyond the relative *tolerance*, items, order, missing keys.

    Keys that were not expected are no difference: clients do not read them.
    """
    return _capped(_different(expected, reply, tolerance, "reply"))


def _different(expected: Any, reply: Any, tolerance: float, path: str) -> list[str]:
    if _is_number(expected) and _is_number(reply):
        if _close(float(expected), float(reply), tolerance):
            return []
        return [f"{path} is {_short(reply)}, expected {_short(expected)} (tolerance {tolerance:g})"]
    if isinstance(expected, list) and isinstance(reply, list):
        if len(expected) != len(reply):
            return [f"{path} has {_items(len(reply))}, expected {len(expected)}"]
        pairs = enumerate(zip(expected, reply, strict=True))
        return [one for at, (mine, theirs) in pairs for one in _different(mine, theirs, tolerance, f"{path}[{at}]")]
    if isinstance(expected, dict) and isinstance(reply, dict):
        found = []
        for key, value in expected.items():
            if key not in reply:
                found.append(f"{path}.{key} is missing, expected {_short(value)}")
            else:
                found += _different(value, reply[key], tolerance, f"{path}.{key}")
        return found
    if type(expected) is type(reply) and expected == reply:
        return []
    return [f"{path} is {_short(reply)}, expected {_short(expected)}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _close(expected: float, reply: float, tolerance: float) -> bool:
    if math.isnan(expected) or math.isnan(reply):
        return math.isnan(expected) and math.isnan(reply)
    return expected == reply or math.isclose(expected, reply, rel_tol=tolerance, abs_tol=TINY)


def _same_kind(reply: Any, schema: Schema) -> bool:
    kind = schema.get("type")
    return kind is None or Draft202012Validator({"type": kind}).is_valid(reply)


def _decoded(text: str) -> Any:
    """Return the object inside a reply that is JSON twice; ``None`` where there is none."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _path(path: Any) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def _short(value: Any) -> str:
    """Say a value on one line: text in quotes, everything else as JSON."""
    return repr(_line(value)) if isinstance(value, str) else _line(json.dumps(value, ensure_ascii=False))


def _line(text: str, longest: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _capped(sentences: list[str]) -> list[str]:
    more = len(sentences) - MOST
    return [*sentences[:MOST], f"and {more} more"] if more > 0 else sentences
