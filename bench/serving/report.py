"""The figures for people: a table and the goals in the terminal, Markdown and a plot for ``docs/performance.md``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.serving.figures import Cell, Figures, Goal, goals, order
from bench.serving.peers import NAMED

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PLOT = "performance.svg"


def terminal(figures: Figures) -> str:
    """Return the tables and the goals as text."""
    lines: list[str] = []
    for model in _models(figures):
        table = _table(figures, model)
        widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
        lines += ["", f"{model}: requests/s (p50 / p99 ms)"]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    lines += ["", "goals"]
    for goal in goals(figures):
        lines.append(f"  {_mark(goal):<8}{_ratio(goal):>8}  {_limit(goal):<7} {goal.says}  {goal.detail}")
    lines += [f"  {name}: not measured: {why}" for name, why in figures.skipped.items()]
    return "\n".join(lines)


def markdown(figures: Figures, command: str, plot: bool) -> str:
    """Return what stands between the markers of ``docs/performance.md``."""
    facts = figures.facts
    parts = [f"Measured {facts['date']} with `{command}` on {facts['machine']}; {facts['conditions']}."]
    if plot:
        parts.append(f"![Requests a second by connections]({PLOT})")
    parts.append(_rows([["goal", "reached", "ratio", "asked", "from"], *map(_goal_row, goals(figures))]))
    for model in _models(figures):
        title = {"ridge": "Ridge regression", "forest": "Random forest of 100 trees"}[model]
        parts += [f"### {title}", "Requests a second, and in brackets the median and the 99th percentile in ms."]
        parts.append(_rows(_table(figures, model)))
    notes = [f"`{name}`: {NAMED[name].note}" for name in order(one.peer for one in figures.samples) if NAMED[name].note]
    parts.append("Rows: " + "; ".join(notes) + ".")
    parts.append("Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".")
    if figures.skipped:
        parts.append("Not measured: " + "; ".join(f"{name}: {why}" for name, why in figures.skipped.items()) + ".")
    return "\n\n".join(parts)


def rewrite(page: Path, text: str) -> None:
    """Put *text* between the markers of *page*. Raises ``ValueError`` when they are not there."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def draw(figures: Figures, path: Path) -> bool:
    """Write the plot of 1-row requests; say whether there is matplotlib to do it."""
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "stageway"  # the same figures give the same file
    from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]

    models = _models(figures)
    steps = sorted({one.connections for one in figures.samples if one.rows == 1})
    names = order(one.peer for one in figures.samples)[::-1]
    size = (3.4 * len(steps) + 1.4, 0.24 * len(names) * len(models) + 1.2)
    there = {
        model: [name for name in names if any(figures.of(name, (model, 1, step)) for step in steps)] for model in models
    }
    heights = [len(shown) for shown in there.values()]
    figure, axes = plt.subplots(
        len(models), len(steps), figsize=size, sharey="row", squeeze=False, height_ratios=heights
    )
    for row, (model, shown) in enumerate(there.items()):
        for column, step in enumerate(steps):
            axis = axes[row][column]
            rates = [sample.rate if (sample := figures.of(name, (model, 1, step))) else 0.0 for name in shown]
            bars = axis.barh(shown, rates, color=[_colour(name) for name in shown], height=0.72)
            axis.bar_label(bars, [f"{rate:,.0f}" if rate else "" for rate in rates], padding=3, fontsize=7)
            axis.set_title(f"{model}, {step} connection{'s' if step > 1 else ''}", fontsize=9, loc="left")
            axis.margins(x=0.2)
            axis.tick_params(labelsize=7.5, left=False)
            axis.xaxis.set_visible(False)
            for spine in axis.spines.values():
                spine.set_visible(False)
    figure.suptitle(
        "Requests a second, 1 row each, one worker on one core (grey: bare limits)", fontsize=10, x=0.01, ha="left"
    )
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    return True


def _colour(name: str) -> str:
    peer = NAMED[name]
    return "#0b6e4f" if peer.ours else "#b8bcc2" if peer.limit else "#d98e04"


def _models(figures: Figures) -> list[str]:
    return list(dict.fromkeys(one.model for one in figures.samples))


def _cells(figures: Figures, model: str) -> list[Cell]:
    return sorted({one.cell for one in figures.samples if one.model == model})


def _table(figures: Figures, model: str) -> list[list[str]]:
    cells = _cells(figures, model)
    head = [f"{rows} row{'s' if rows > 1 else ''}, c{connections}" for _, rows, connections in cells]
    return [["server", *head, "req per CPU s", "MiB", "start s", "wrong"], *_lines(figures, model, cells)]


def _lines(figures: Figures, model: str, cells: list[Cell]) -> Iterator[list[str]]:
    for name in order(one.peer for one in figures.samples if one.model == model):
        found = [figures.of(name, cell) for cell in cells]
        there = [one for one in found if one is not None]
        # Where many wait, for one row: the cell in which servers differ most.
        widest = max((one for one in there if one.rows == 1), key=lambda one: one.connections, default=there[0])
        running = [one for one in figures.running if (one.peer, one.model) == (name, model)]
        memory = figures.memory(name, model)
        wrong = sum(one.wrong + one.bad + one.broken for one in there)
        yield [
            name,
            *(f"{one.rate:,.0f} ({one.p50:.2f} / {one.p99:.2f})" if one else "-" for one in found),
            f"{widest.per_cpu:,.0f}",
            f"{memory:.0f}" if memory else "-",
            f"{min(one.ready for one in running):.1f}" if running else "-",
            f"{wrong} of {sum(one.checked for one in there):,}" if NAMED[name].answers else "-",
        ]


def _goal_row(goal: Goal) -> list[str]:
    return [goal.says, _mark(goal), _ratio(goal), _limit(goal), goal.detail]


def _mark(goal: Goal) -> str:
    return {True: "yes", False: "no", None: "-"}[goal.reached]


def _ratio(goal: Goal) -> str:
    return f"{goal.ratio:.2f}" if goal.ratio is not None else "-"


def _limit(goal: Goal) -> str:
    return f"{'≥' if goal.at_least else '≤'} {goal.limit:g}"


def _rows(table: list[list[str]]) -> str:
    head, *rows = table
    lines = [head, ["---", *("---:" if len(head) > 5 else "---" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)
