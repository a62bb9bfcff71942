"""What a converter left in its folder, read as what it is: written by a process that ran the model's own code.

Nothing is followed, nothing without a limit is read, and every value has its type before anything uses it. That the
values are true cannot be checked here: see decision 6.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stageway.errors import PackagingError

ANSWER, FORM, MODEL, REPORT = "answer.json", "form", "model.onnx", "report.json"
LARGEST = {ANSWER: 2**16, REPORT: 2**20, MODEL: 2**31}
"""Bytes; ONNX itself ends at 2 GiB."""
LOOSEST = 1e-5
FEWEST = 2000
LONGEST = 300

Text = Annotated[str, Field(max_length=200)]
Name = Annotated[str, Field(pattern=r"^[\w.\-]{1,100}$")]
Kind = Literal["float64", "int64", "float32"]
Micros = Annotated[float, Field(gt=0, lt=1e12)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Difference = Annotated[float, Field(ge=0, le=LOOSEST)]


class UnfitError(PackagingError):
    """What the converter left is not what a converter leaves; the message says what."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Times(_Strict):
    """What the same rows take."""

    original_us: Micros
    accelerated_us: Micros


class Speed(_Strict):
    """Of 1 and of 64 rows."""

    one: Times = Field(alias="1")
    slice: Times = Field(alias="64")


class Answer(_Strict):
    """The converter's verdict: *reason* or *speed*; a *passing* reason may be gone another time."""

    reason: str | None = None
    speed: Speed | None = None
    passing: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Answer:
        if (self.reason is None) == (self.speed is None):
            raise ValueError("either a reason or a speed")
        return self

    @property
    def sentence(self) -> str:
        if self.speed is None:
            return line(self.reason or "")
        one = self.speed.one
        return f"one row in {one.accelerated_us:.0f} µs, the original takes {one.original_us:.0f} µs"


class _Input(_Strict):
    name: Text
    type: Literal["float64", "float32"]


class _Output(_Strict):
    rows: Kind
    shape: Annotated[list[Count], Field(max_length=8)]
    type: Annotated[str, Field(pattern=r"^(object|bool|u?int(8|16|32|64)|float(16|32|64))$")]


class _Compared(_Strict):
    rows: Annotated[int, Field(ge=FEWEST)]
    largest_difference: Difference
    too_close_to_call: Count = 0
    differing_there: Count = 0


class Report(_Strict):
    """``report.json`` of a form."""

    format: Literal[1]
    input: _Input
    methods: Annotated[dict[Name, Text], Field(min_length=1)]
    outputs: dict[Name, dict[Kind, _Output]]
    rows: Annotated[list[Kind], Field(min_length=1)]
    nan: bool
    tolerance: Difference
    compared: dict[Name, _Compared]
    generated: dict[Name, Count]
    samples: Count
    opset: dict[Name, Count]
    versions: dict[Name, Text]

    @model_validator(mode="after")
    def _complete(self) -> Report:
        for method in self.methods:
            if method not in self.compared or not {*self.rows} <= self.outputs.get(method, {}).keys():
                raise ValueError(f"{method} was not compared")
        return self


def read_answer(place: Path) -> Answer:
    """Return the verdict in *place*. Raises ``UnfitError``, or ``FileNotFoundError`` where there is none."""
    answer: Answer = _validated(Answer, ANSWER, _bytes(place, ANSWER))
    return answer


def copy_form(place: Path, content: Path) -> None:
    """Copy the form's two files from *place*, and nothing else that may lie there; ``UnfitError`` says why not."""
    report = _bytes(place / FORM, REPORT)
    _validated(Report, REPORT, report)
    (content / REPORT).write_bytes(report)
    with _opened(place / FORM, MODEL) as file, (content / MODEL).open("wb") as copy:
        shutil.copyfileobj(file, copy, 2**20)
        if not copy.tell():
            raise UnfitError(f"the converter left an empty {MODEL}")


def _bytes(folder: Path, name: str) -> bytes:
    with _opened(folder, name) as file:
        return file.read(LARGEST[name])


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a regular file, no larger than it may be, of a real folder."""
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # What is no file must not be waited for either.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        finally:
            os.close(at)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnfitError(f"the converter left no plain file {name}: {(error.strerror or '').lower()}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UnfitError(f"the converter left no plain file {name}")
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > LARGEST[name]:
            raise UnfitError(f"the converter left {name} of {found.st_size} bytes; at most {LARGEST[name]} are taken")
        yield file


def _validated(kind: type[Any], name: str, text: bytes) -> Any:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UnfitError(line(f"the converter left {name} that is none: {where}: {first['msg']}")) from error


def line(text: str) -> str:
    """Return *text* as one short line without what would do something to a terminal."""
    return "".join(one if one.isprintable() else "?" for one in " ".join(text.split())[:LONGEST])
