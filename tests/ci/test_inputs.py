"""A task's signature says its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from stageway.ci.inputs import Input, inputs
from stageway.errors import ConfigError


def test_every_kind_of_input_is_read() -> None:
    def task(
        dossier: Any,
        workspace: Any,
        *,
        stage: Annotated[str, "Where."],
        best_by: Annotated[str | None, "By what."] = None,
        from_: Annotated[Path, "From."] = Path("x"),
        count: Annotated[int, "How many."] = 3,
        budget: Annotated[float | None, "How long."] = None,
        again: Annotated[bool, "Again."] = False,
        tags: Annotated[list[str] | None, "KEY=VALUE"] = None,
        how: Annotated[Literal["a", "b"], "How."] = "a",
    ) -> None: ...

    assert inputs("any", task) == [
        Input("stage", "--stage", "text", "Where.", True, None),
        Input("best-by", "--best-by", "text", "By what.", False, None),
        Input("from", "--from", "text", "From.", False, "x"),
        Input("count", "--count", "number", "How many.", False, "3"),
        Input("budget", "--budget", "number", "How long.", False, None),
        Input("again", "--again", "flag", "Again.", False, "false"),
        Input("tags", "--tags", "list", "KEY=VALUE", False, None),
        Input("how", "--how", "text", "How.", False, "a"),
    ]


def test_the_path_to_register_is_an_argument() -> None:
    def register(dossier: Any, workspace: Any, *, path: Annotated[Path | None, "What."] = None) -> None: ...

    assert inputs("register", register)[0].flag == ""
    assert inputs("other", register)[0].flag == "--path"


def test_an_input_without_help_is_refused() -> None:
    def task(dossier: Any, workspace: Any, *, stage: str) -> None: ...

    with pytest.raises(ConfigError, match="task t: the input stage has no help"):
        inputs("t", task)


@pytest.mark.parametrize("hint", [list[int], dict[str, str], str | int])
def test_a_type_that_ci_cannot_say_is_refused(hint: Any) -> None:
    def task(dossier: Any, workspace: Any, *, stage: Any) -> None: ...

    task.__annotations__["stage"] = Annotated[hint, "Where."]
    with pytest.raises(ConfigError, match="use str, int, float, bool, Path or list"):
        inputs("t", task)
