"""How the demo shows what goes on: phases with a spinner and seconds on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stageway import output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

WIDTH = 15
"""Of a phase's name."""


@dataclass(frozen=True)
class Phase:
    """One thing that was done: under which heading, what came of it, and how long it took."""

    heading: str
    name: str
    said: str
    seconds: float


@dataclass
class Display:
    """Plain lines: one when a phase has ended."""

    phases: list[Phase] = field(default_factory=list)
    heading: str = ""
    _name: str = ""
    _since: float = 0.0

    def chapter(self, title: str) -> None:
        """Start a part of the story."""
        self.heading = title
        self.line()
        self.line(title)

    def begin(self, name: str) -> None:
        """Say that something goes on. One phase at a time."""
        self._name, self._since = name, time.perf_counter()

    def note(self, text: str) -> None:
        """Say what the phase that goes on is doing just now."""

    def end(self, said: str, *, good: bool = True) -> None:
        """Say what came of the phase that was begun last."""
        seconds = time.perf_counter() - self._since
        self.phases.append(Phase(self.heading, self._name, said, seconds))
        self._ended(self._name, said, seconds, good)

    @contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        """Show what the block does; it puts what came of it into the list."""
        self.begin(name)
        said: list[str] = []
        yield said
        self.end("; ".join(said))

    def line(self, text: str = "") -> None:
        """Say one line, exactly as it is."""
        output.line(text)

    def detail(self, text: str) -> None:
        """Say something more about the phase that ended last."""
        self.line(f"  {'':<{WIDTH}} {text}")

    def close(self) -> None:
        """Stop moving things on the terminal."""

    def _ended(self, name: str, said: str, seconds: float, good: bool) -> None:
        output.line(f"  {name:<{WIDTH}} {said} ({seconds:.1f} s)")


class LiveDisplay(Display):
    """The same on a terminal: the phase that goes on has a spinner, its latest note and its seconds."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        super().__init__()
        self._console = console or Console(highlight=False)
        self._progress = Progress(
            TextColumn(" "),
            SpinnerColumn(),
            TextColumn(f"{{task.description:<{WIDTH}}}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}", style="dim", markup=False),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None

    def begin(self, name: str) -> None:
        super().begin(name)
        self._progress.start()
        self._task = self._progress.add_task(name, total=None, doing="")

    def note(self, text: str) -> None:
        if self._task is not None:
            room = max(20, self._console.width - WIDTH - 20)
            self._progress.update(self._task, doing=text if len(text) <= room else text[: room - 1] + "…")

    def line(self, text: str = "") -> None:
        self._console.print(text, markup=False, soft_wrap=True, style="bold" if text and text == self.heading else None)

    def close(self) -> None:
        self._progress.stop()
        self._task = None

    def detail(self, text: str) -> None:
        self._console.print(f"    {'':<{WIDTH}} {text}", markup=False, soft_wrap=True, style="dim")

    def _ended(self, name: str, said: str, seconds: float, good: bool) -> None:
        from rich.text import Text

        if self._task is not None:
            self._progress.remove_task(self._task)
        self.close()
        mark = Text("  ✓ " if good else "  ✗ ", style="green" if good else "red")
        line = Text.assemble(mark, (f"{name:<{WIDTH}} ", "bold"), said, (f"  {seconds:.1f} s", "dim"))
        self._console.print(line, soft_wrap=True)


def display(on_terminal: bool) -> Display:
    """Return the display for where the demo runs."""
    return LiveDisplay() if on_terminal else Display()
