"""What a run's tasks said can be read, also while they say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stageway.errors import ConfigError
from stageway.pipelines import logs
from stageway.pipelines.runner import Retry

if TYPE_CHECKING:
    from tests.conftest import Project


def test_a_log_is_read_from_its_end_and_followed(project: Project) -> None:
    workspace = project.workspace
    for number in range(5):
        logs.write(workspace, 7, "package", f"layer {number}")
    assert [line.partition("Z ")[2] for line in logs.lines(workspace, 7, lines=2)] == [
        "package: layer 3",
        "package: layer 4",
    ]
    following = logs.lines(workspace, "7", lines=1, follow=True)
    assert next(following).endswith("layer 4")
    logs.write(workspace, 7, "deploy dev", "two\nlines")
    assert [next(following).partition("Z ")[2] for _ in range(2)] == ["deploy dev: two", "deploy dev: lines"]


def test_a_log_is_its_owners_alone(project: Project) -> None:
    logs.write(project.workspace, 7, "package", "said")
    assert logs.path(project.workspace, 7).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("run", ["8", "../7", "x", ""])
def test_a_log_that_is_not_there_is_said(project: Project, run: str) -> None:
    logs.write(project.workspace, 7, "package", "said")
    with pytest.raises(ConfigError, match="no log of run"):
        list(logs.lines(project.workspace, run))


@pytest.mark.parametrize(
    ("retries", "asked", "least"), [(0, 0.0, 1.0), (3, 0.0, 8.0), (0, 30.0, 30.0), (20, 0.0, 60.0)]
)
def test_tries_are_further_and_further_apart_and_never_in_step(retries: int, asked: float, least: float) -> None:
    retry = Retry(first=1.0, longest=60.0)
    waits = {retry.seconds(retries, asked) for _ in range(20)}
    assert len(waits) > 1
    assert all(least <= wait <= least * 1.25 for wait in waits)
