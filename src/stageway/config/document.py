"""One YAML file as plain values, with the line and column of each of them.

Reads PyYAML's node tree, so that an error found later (a type, a gate's option) can still be shown where it was
written. Keys are text as written, dates too; tags of other programs are refused. A file that would
grow (aliases within aliases), nest or loop without end is refused, whatever it means.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stageway.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
MAX_DEPTH = 40
MERGE = "tag:yaml.org,2002:merge"

Loc = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, where it is, and the way out; *key* is such as ``stages.prod.gates[0]``."""

    line: int
    column: int
    key: str
    text: str

    def sentence(self, name: str) -> str:
        return f"{name}:{self.line}:{self.column}: {self.key + ': ' if self.key else ''}{self.text}"


@dataclass
class Document:
    """The *value* of a file, and where each part of it stands. *problems* are those of the notation itself;
    *unread* tells that a value could not be read, so that nothing follows from the rest.
    """

    name: str
    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    unread: bool = False
    keys: dict[Loc, yaml.Mark] = field(default_factory=dict)
    values: dict[Loc, yaml.Node] = field(default_factory=dict)

    def has(self, loc: Loc) -> bool:
        return loc in self.values

    def written(self, loc: Loc) -> str:
        """Say the value at *loc* as it was written, short enough for one line."""
        node = self.values.get(loc)
        if isinstance(node, yaml.ScalarNode):
            text = node.value if len(node.value) <= 60 else node.value[:57] + "..."
            return repr(text)
        if isinstance(node, yaml.SequenceNode):
            return "a list"
        return "a mapping" if node is not None else "nothing"

    def problem(self, loc: Loc, text: str, *, at_key: bool = False) -> Problem:
        """Return a problem at *loc*, or at the nearest part above it that is written down."""
        here = loc
        while here and here not in self.values:
            here = here[:-1]
        mark = self.keys.get(here) if at_key or here != loc else None
        if mark is None and here in self.values:
            mark = self.values[here].start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return Problem(line, column, dotted(loc), text)

    def error(self, problems: list[Problem]) -> ConfigError:
        """Return one error for all *problems*: the first is the message, the others are its detail."""
        first, *others = [one.sentence(self.name) for one in sorted(set(problems))]
        return ConfigError(first, detail="\n".join(others))


def dotted(loc: Loc) -> str:
    """Write a place as people do: ``stages.prod.gates[0].metric``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(path: Path) -> Document:
    """Read the YAML file *path*. Raises ``ConfigError`` when it cannot be read or is not YAML."""
    name = display(path)
    return parse(_text(path, name), name)


def parse(text: str, name: str) -> Document:
    """Read *text* as YAML; *name* is what errors call it."""
    document = Document(name)
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        what = error.problem or error.context or "is not YAML"
        raise ConfigError(Problem(line, column, "", f"is not YAML: {' '.join(what.split())}").sentence(name)) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        bad = f"is not YAML: the character {chr(error.character)!r} is not allowed"
        raise ConfigError(Problem(line, column, "", bad).sentence(name)) from error
    if root is None:
        raise ConfigError(f"{name}: is empty")
    _Reader(document).read(root)
    return document


def display(path: Path) -> str:
    """Return *path* as it is best typed from here: relative where it is below the current folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _text(path: Path, name: str) -> str:
    try:
        # Not blocking: a named pipe of that name must not hang us.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError(f"{name}: is not a file; give the path of a YAML file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: no such file; `stageway init NAME` starts a project") from error
    except ValueError as error:
        raise ConfigError(f"{name!r}: is not a path of a file: {error}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{name}: is not a file; give the path of a YAML file") from error
    except PermissionError as error:
        raise ConfigError(f"{name}: may not be read; `chmod u+r {name}` allows it") from error
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name}: is larger than {MAX_BYTES} bytes; that is not a configuration file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}: is not UTF-8 text; save it with that encoding") from error


class _Loader(yaml.SafeLoader):
    """Composes nodes and nothing else, and stops at a depth that no person writes."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_DEPTH} levels deep",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Reader:
    """Turns nodes into values and keeps where they stood."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.scalars = yaml.SafeLoader("")
        self.left = MAX_VALUES
        self.open: set[int] = set()

    def read(self, root: yaml.Node) -> None:
        try:
            self.document.value = self.value(root, ())
        except _TooMuch as error:
            raise self.document.error([error.problem]) from error

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.document.values[loc] = node
        self.spend(loc)
        if id(node) in self.open:
            raise _TooMuch(self.document.problem(loc, "an alias contains itself; write the value out"))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, loc)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return self.mapping(node, loc)
        finally:
            self.open.discard(id(node))
        return self.refuse_tag(node, loc)

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value, own in self.pairs(node, loc, ()):
            if not isinstance(key, yaml.ScalarNode):
                self.add(loc, "a key must be text", key)
            elif key.value not in found:
                self.document.keys[*loc, key.value] = key.start_mark
                found[key.value] = self.value(value, (*loc, key.value))
            elif own:
                first = self.document.keys[*loc, key.value].line + 1
                self.add((*loc, key.value), f"duplicate key; it is on line {first} already, remove one", key)
        return found

    def pairs(
        self, node: yaml.MappingNode, loc: Loc, through: tuple[int, ...]
    ) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Yield the node's own pairs, then those that ``<<`` brings in (keys that are written out win)."""
        if id(node) in through:
            raise _TooMuch(self.document.problem(loc, "an alias contains itself; write the value out"))
        merges = [value for key, value in node.value if key.tag == MERGE]
        yield from ((key, value, not through) for key, value in node.value if key.tag != MERGE)
        for merge in merges:
            for source in merge.value if isinstance(merge, yaml.SequenceNode) else [merge]:
                self.spend(loc)
                if isinstance(source, yaml.MappingNode):
                    yield from self.pairs(source, loc, (*through, id(node)))
                else:
                    self.add(loc, "'<<' takes an alias of a mapping", source)

    def spend(self, loc: Loc) -> None:
        self.left -= 1
        if self.left < 0 or len(loc) > MAX_DEPTH:
            raise _TooMuch(self.document.problem(loc, "grows without end by its aliases; write the values out"))

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        value: Any = node.value
        if kind in ("null", "bool", "int", "float"):
            try:
                value = self.scalars.construct_object(node)
            except (ValueError, KeyError, IndexError, ArithmeticError, yaml.YAMLError):
                return self.refuse(loc, f"{self.document.written(loc)} is not a number; write it in quotes", node)
            if isinstance(value, float) and not math.isfinite(value):
                return self.refuse(loc, f"{self.document.written(loc)} is not a finite number", node)
        elif kind not in ("str", "timestamp", "value"):
            return self.refuse_tag(node, loc)
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= one <= "\udfff" for one in value):
            return self.refuse(loc, "has half of a character pair; write the character itself", node)
        return value

    def refuse_tag(self, node: yaml.Node, loc: Loc) -> None:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        self.refuse(loc, f"the tag {tag!r} is not allowed here; write a plain value", node)

    def refuse(self, loc: Loc, text: str, node: yaml.Node) -> None:
        self.document.unread = True
        self.add(loc, text, node)

    def add(self, loc: Loc, text: str, node: yaml.Node) -> None:
        mark = node.start_mark
        self.document.problems.append(Problem(mark.line + 1, mark.column + 1, dotted(loc), text))


class _TooMuch(Exception):
    """Nothing after this can be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem
