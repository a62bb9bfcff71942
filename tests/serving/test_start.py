"""A service that cannot start ends at once, with exit code 1, the script's traceback and one sentence."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

STARTED = "stageway-serving: cannot start: "
FINE = "def run(data):\n    return 1\n"


@pytest.mark.parametrize(
    ("script", "sentence", "above"),
    [
        (
            "import nowhere\n",
            "score.py does not import: ModuleNotFoundError: No module named 'nowhere'",
            "ModuleNotFoundError: No module named 'nowhere'",
        ),
        (
            "def run(data:\n",
            "score.py does not import: SyntaxError: '(' was never closed (score.py, line 1)",
            "SyntaxError: '(' was never closed",
        ),
        ("import sys\nsys.exit(0)\n", "score.py does not import: SystemExit: 0", "SystemExit: 0"),
        ("def init(): pass\n", "score.py has no function run; define run(data)", None),
        (
            "def init():\n    open('/nowhere/model.pkl')\n" + FINE,
            "init() of score.py raised FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/model.pkl'",
            "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/model.pkl'",
        ),
        ("import sys\ndef init():\n    sys.exit()\n" + FINE, "init() of score.py raised SystemExit", "SystemExit"),
        (
            "def run(**data): pass\n",
            "run() of score.py takes **data; give its parameters names, such as run(data)",
            None,
        ),
        ("def run(*data): pass\n", "run() of score.py takes *data; give its parameters names, such as run(data)", None),
        (
            "def run(data, /): pass\n",
            "run() of score.py takes the positional-only data; give its parameters names, such as run(data)",
            None,
        ),
        ("def run(): pass\n", "run() of score.py takes no data; give it a parameter, such as run(data)", None),
        (
            "def run(a, b): pass\n",
            "run() of score.py takes 'a', 'b' without a schema; declare each with @input_schema, or take one",
            None,
        ),
        ("async def run(data): pass\n", "run() of score.py is async; define it with def", None),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_script_that_cannot_serve_is_said(
    start: Any, script: str, sentence: str, above: str | None, workers: int
) -> None:
    service = start(script, "--workers", str(workers))
    assert service.ended() == 1
    assert service.lines[-1] == STARTED + sentence
    if above is not None:
        assert above in service.lines[-2 * workers :]
        assert not [line for line in service.lines if "stageway/serving" in line]
    assert not service.uds.exists()


def test_a_worker_that_crashes_in_init_ends_the_service(start: Any) -> None:
    service = start("import os\ndef init():\n    os.abort()\n" + FINE)
    assert service.ended() == 1
    assert service.lines[-1].startswith(STARTED)


def test_nothing_answers_before_every_init_is_done(start: Any, tmp_path: Path) -> None:
    script = """
import os, time
def init():
    mine = "first" if not os.path.exists("first") else "second"
    open(mine, "w").close()
    while mine == "second" and not os.path.exists("go"):
        time.sleep(0.01)
def run(data):
    return 1
"""
    service = start(script, "--workers", "2", folder=tmp_path)
    from_second = tmp_path / "second"
    while not from_second.exists():
        assert service.process.poll() is None
    assert not service.uds.exists()
    (tmp_path / "go").touch()
    assert service.ready().ask("GET", "/").body == b"Healthy"
    assert [path.name for path in service.place.iterdir() if path.is_socket()] == ["s"]


def test_a_script_that_is_not_there(start: Any, tmp_path: Path) -> None:
    service = start(None, "--entry-script", "score.py", folder=tmp_path)
    assert service.ended() == 1
    assert service.lines == [f"{STARTED}entry script score.py: no such file in {tmp_path.resolve()}"]


def test_a_framework_that_needs_a_script(start: Any) -> None:
    service = start(None, "--framework", "Spark")
    assert service.ended() == 1
    sentence = "framework 'Spark' needs an entry script; without one there is ScikitLearn, "
    assert service.lines[-1].startswith(STARTED + sentence)


def test_missing_layers_are_said(start: Any) -> None:
    service = start(FINE, environment={"STAGEWAY_SITE": "/nowhere"})
    assert service.ended() == 1
    assert service.lines[-1].startswith(STARTED + "the package 'granian' is missing; the layers have to hold granian>=")


def test_a_port_in_use_is_an_error(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = str(taken.getsockname()[1])
        service = start(FINE, "--port", port)
        assert service.ended() == 1
    assert service.lines == [f"{STARTED}--host 127.0.0.1 --port {port}: the port is in use; choose another"]


def test_a_socket_path_that_is_too_long_is_said(start: Any, tmp_path: Path) -> None:
    service = start(FINE, "--uds", str(tmp_path / ("s" * 104)))
    assert service.ended() == 1
    assert "a Unix socket takes 103; use a shorter folder" in service.lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one of --entry-script and --framework is needed"),
        (["--entry-script", "a.py", "--framework", "ScikitLearn"], "not allowed with argument"),
        (["--entry-script", "a.py", "--workers", "0"], "argument --workers"),
        (["--entry-script", "a.py", "--contract", "nowhere.json"], "--contract nowhere.json: no such file"),
        (["--entry-script", "a.py", "--release", "a\r\nb"], "cannot be sent in the header x-stageway-release"),
    ],
)
def test_wrong_use_is_exit_code_2(start: Any, arguments: list[str], words: str) -> None:
    service = start(None, *arguments)
    assert service.ended() == 2
    assert words in service.lines[-1]


def test_port_0_takes_a_free_port_and_says_which(start: Any) -> None:
    first = start(FINE, "--port", "0", "--workers", "2").ready()
    second = start(FINE, "--port", "0").ready()
    assert first.port != second.port
    assert [service.ask("GET", "/").status for service in (first, second)] == [200, 200]
    assert first.score({}).json == 1


def test_workers_can_be_spawned_instead_of_forked(start: Any, layer: Path) -> None:
    """macOS, and Linux from Python 3.14 on, start processes that way."""
    service_type = type(start(FINE))
    code = (
        "import multiprocessing, sys; multiprocessing.set_start_method('spawn')\n"
        "from stageway.serving.layers import add_layers; add_layers()\n"
        "from stageway.serving.main import main; sys.exit(main())"
    )
    folder = Path(layer).parent
    (folder / "score.py").write_text("import sys\ndef run(data):\n    return [sys.flags.no_site, sys.path]\n")
    service = service_type(folder, layer, ["--entry-script", "score.py", "--workers", "2"], command=("-c", code))
    try:
        no_site, path = service.ready().score({}).json
        assert no_site == 1
        assert str(layer) in path
        assert sum("site-packages" in one for one in path) == 1
    finally:
        service.end()
