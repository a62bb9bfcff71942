"""Names with values as HTTP has them: found in any case (headers), and as often as they were sent."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional


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


class HeaderDict(dict):  # type: ignore[type-arg]
    """The request's headers, found in any case, and listed in the case v1 gave them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__({case(name): text for name, text in headers.items()})

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(case(name))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(case(name))

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(case(name), default)


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
