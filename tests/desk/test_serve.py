"""``stageway serve`` as a program: what it serves, what it says, how it reloads and ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from stageway.config.workspace import Workspace

PATIENCE = 90.0

SCRIPT = """\
import json
import os


def init():
    global factor
    folder = os.environ["AZUREML_MODEL_DIR"]
    assert folder == os.path.relpath(folder)
    with open(os.path.join(folder, "factor.json")) as file:
        factor = json.load(file)


def run(raw_data):
    return [factor * value for value in json.loads(raw_data)["data"]]
"""


class Desk:
    """One ``stageway serve`` in *folder*; its lines are read as they come."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stageway", "serve", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out, self.err = [], []  # type: ignore[var-annotated]
        pairs: list[tuple[Any, list[str]]] = [(self.process.stdout, self.out), (self.process.stderr, self.err)]
        self.readers = [threading.Thread(target=lines.extend, args=(stream,)) for stream, lines in pairs]
        for reader in self.readers:
            reader.start()

    def until(self, true: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := true()):
            assert time.monotonic() < end, "".join([*self.out, *self.err])
            assert self.process.poll() is None, "".join([*self.out, *self.err])
            time.sleep(0.02)
        return found

    @property
    def address(self) -> str:
        def found() -> str:
            lines = [line for line in self.out if " is served on " in line]
            return lines[0].split()[-1] if lines else ""

        return str(self.until(found))

    def score(self, body: Any) -> Any:
        reply = requests.post(f"{self.address}/score", json=body, timeout=PATIENCE)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def says(self, text: str) -> None:
        self.until(lambda: any(text in line for line in self.err))

    def ended(self) -> int:
        code = self.process.wait(PATIENCE)
        self.close()
        return code

    def close(self) -> None:
        for reader in self.readers:
            reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


Open = Callable[..., Desk]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Open]:
    """Start the command: ``desk("model.joblib", cwd=folder)``, on a free port; all end with the test."""
    opened: list[Desk] = []

    def begin(*arguments: str, cwd: Path = tmp_path, port: str = "0", **environ: str) -> Desk:
        opened.append(Desk(cwd, (*arguments, "--port", port), environ))
        return opened[-1]

    yield begin
    for one in opened:
        # Its server is a process group of its own, and ends with it.
        one.process.send_signal(signal.SIGTERM)
        try:
            one.process.wait(30)
        except subprocess.TimeoutExpired:
            one.process.kill()
        one.close()


@pytest.fixture
def factor(tmp_path: Path) -> Path:
    """A folder with a script and the model file that it reads."""
    (tmp_path / "score.py").write_text(SCRIPT)
    (tmp_path / "factor.json").write_text("2")
    return tmp_path


@pytest.fixture(scope="module")
def ridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joblib file of a model that says 2x + y."""
    import joblib
    from sklearn.linear_model import Ridge

    rows = np.random.default_rng(0).normal(size=(50, 2))
    path = tmp_path_factory.mktemp("model") / "plain.joblib"
    joblib.dump(Ridge(alpha=1e-9).fit(rows, rows @ [2.0, 1.0]), path)
    return path


def test_a_model_file_is_served_without_script_and_project(desk: Open, ridge: Path) -> None:
    one = desk(str(ridge))
    assert one.score({"data": [[1, 2]]})["predict"] == pytest.approx([4])
    banner = "".join(one.out)
    assert f"{ridge} with ScikitLearn is served on {one.address}" in banner
    assert f"curl {one.address}/score -H 'content-type: application/json' -d '{{\"data\": [[0.0, 0.0]]}}'" in banner
    assert f"docs    {one.address}/docs" in banner
    assert "Ctrl-C" in banner
    assert requests.get(f"{one.address}/score", timeout=9).headers["x-stageway-model-version"] == "plain:1"


def test_the_line_to_try_works_in_a_shell(desk: Open, ridge: Path) -> None:
    one = desk(str(ridge))
    assert one.address
    line = one.until(lambda: next((line for line in one.out if "curl" in line), ""))
    done = subprocess.run(["sh", "-c", line.split("try it")[1] + " -s"], capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["predict"] == pytest.approx([0], abs=1e-6)


def test_a_script_finds_its_model_where_v1_put_it(desk: Open, factor: Path) -> None:
    one = desk("factor.json", "--entry-script", "score.py")
    assert one.score({"data": [1, 2]}) == [2, 4]
    assert "factor.json with score.py is served on" in one.out[0]


def test_a_script_opens_the_files_beside_it(desk: Open, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("hello")
    (tmp_path / "helper.py").write_text("def word():\n    return open('words.txt').read()\n")
    (tmp_path / "score.py").write_text("import helper\n\n\ndef run(data):\n    return helper.word()\n")
    assert desk("--entry-script", "score.py").score({}) == "hello"


def test_an_edit_reloads_a_mistake_changes_nothing_and_its_mending_reloads(desk: Open, factor: Path) -> None:
    one = desk("factor.json", "--entry-script", "score.py", "--reload")
    assert one.score({"data": [1]}) == [2]
    (factor / "score.py").write_text(SCRIPT.replace("factor * value", "-factor * value"))
    one.says("reloaded: score.py changed")
    assert one.score({"data": [1]}) == [-2]
    (factor / "score.py").write_text("def run(:\n")
    one.says("not reloaded: score.py changed, but score.py does not import: SyntaxError")
    assert one.score({"data": [1]}) == [-2], "the workers from before go on"
    one.err.clear()
    (factor / "score.py").write_text(SCRIPT.replace("factor * value", "10 * factor * value"))
    one.says("reloaded: score.py changed")
    assert one.score({"data": [1]}) == [20]


def test_a_model_that_is_replaced_by_a_new_file_reloads(desk: Open, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "factor.json").write_text("2")
    one = desk("factor.json", "--entry-script", "code/score.py", "--reload")
    assert one.score({"data": [1]}) == [2]
    (tmp_path / "factor.new").write_text("3")
    (tmp_path / "factor.new").replace(tmp_path / "factor.json")
    one.says("reloaded: factor.json changed")
    assert one.score({"data": [1]}) == [3]


def test_ctrl_c_ends_the_service_with_all_its_processes(desk: Open, ridge: Path) -> None:
    one = desk(str(ridge), "--workers", "2")
    port = int(one.address.rpartition(":")[2])
    one.process.send_signal(signal.SIGINT)
    assert one.ended() == 0
    assert one.err[-1] == "stopped\n"
    with pytest.raises(OSError, match="refused"), contextlib.closing(socket.create_connection(("127.0.0.1", port), 5)):
        pass


HANGS = """\
import threading


def run(data):
    print("hangs now", flush=True)
    threading.Event().wait()
"""


def hang(one: Desk) -> threading.Thread:
    """Send a request that is never answered."""

    def ask() -> None:
        with contextlib.suppress(requests.RequestException):
            requests.post(f"{one.address}/score", data="{}", timeout=PATIENCE)

    asking = threading.Thread(target=ask)
    asking.start()
    one.says("hangs now")
    return asking


def test_a_second_ctrl_c_ends_a_run_that_hangs_at_once(desk: Open, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(HANGS)
    one = desk("--entry-script", "score.py")
    asking = hang(one)
    end = time.monotonic() + PATIENCE
    one.process.send_signal(signal.SIGINT)
    while one.process.poll() is None:
        assert time.monotonic() < end, "a second signal does not end it"
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.process.wait(0.7)  # longer than signals that count as one
        one.process.send_signal(signal.SIGINT)
    assert one.ended() == 0
    asking.join(PATIENCE)
    assert not asking.is_alive(), "the worker is gone, and the request with it"


SLOW = """\
import json
import os
import time


def run(data):
    print("begins", flush=True)
    while not os.path.exists(json.loads(data)):
        time.sleep(0.05)
    return "done"
"""


def test_two_signals_at_once_stop_it_in_order(desk: Open, tmp_path: Path) -> None:
    # As `timeout` sends them: one to the process, one to its group.
    (tmp_path / "score.py").write_text(SLOW)
    one = desk("--entry-script", "score.py")
    replies: list[int] = []
    body = json.dumps(str(tmp_path / "go"))
    asking = threading.Thread(
        target=lambda: replies.append(requests.post(f"{one.address}/score", data=body, timeout=PATIENCE).status_code)
    )
    asking.start()
    one.says("begins")
    one.process.send_signal(signal.SIGTERM)
    one.process.send_signal(signal.SIGTERM)
    one.process.send_signal(signal.SIGINT)
    (tmp_path / "go").touch()
    asking.join(PATIENCE)
    assert one.ended() == 0
    assert replies == [200], "what was in flight is answered"


def test_the_service_ends_when_the_command_is_killed(desk: Open, ridge: Path) -> None:
    one = desk(str(ridge), "--workers", "2")
    port = int(one.address.rpartition(":")[2])
    one.process.kill()
    one.process.wait(PATIENCE)
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(ConnectionRefusedError):
        while time.monotonic() < end:
            socket.create_connection(("127.0.0.1", port), 5).close()
            time.sleep(0.02)
        pytest.fail("it is still there")


def test_a_port_in_use_is_one_line_with_the_way_out(desk: Open, ridge: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        one = desk(str(ridge), port=str(port))
        assert one.ended() == 2
    assert one.err == [f"error: --host 127.0.0.1 --port {port}: address already in use; --port 0 takes a free one\n"]


def test_a_script_that_cannot_start_is_one_line_and_its_traceback(desk: Open, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init():\n    raise RuntimeError('no luck')\n\n\ndef run(data):\n    pass\n")
    one = desk("--entry-script", "score.py")
    assert one.ended() == 1
    assert one.err[-1].startswith("error: init() of score.py raised RuntimeError: no luck")
    trace = "".join(one.err)
    assert 'score.py", line 2, in init' in trace
    assert "stageway/serving" not in trace, "the traceback is the script's own"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--batching", "perhaps"), "'perhaps' is not one of 'auto', 'on', 'off'"),
        (("--log-format", "xml"), "'xml' is not one of 'text', 'json'"),
        (("--timeout", "-1"), "Invalid value for '--timeout': Input should be greater than or equal to 0"),
        (("--timeout", "inf"), "error: --timeout: 'inf' is not a number of seconds"),
        (("--tls-key", "key.pem"), "error: --tls-certificate and --tls-key belong together; give both"),
        (
            ("--cors", "shop.example"),
            "error: --cors (AML_CORS_ORIGINS) 'shop.example' is not an origin; write https://",
        ),
        (("--host", "foo.invalid"), "error: --host foo.invalid --port 0: "),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_with_a_setting_is_said_alone(
    desk: Open, ridge: Path, arguments: tuple[str, ...], said: str
) -> None:
    one = desk(str(ridge), *arguments)
    assert one.ended() == 2
    whole = "".join(one.err)
    assert said in whole
    assert "stageway-serving" not in whole, "the inner program's usage is not the user's"
    assert "takes a free one" not in whole, "no port is in use"


def test_a_missing_module_is_said_with_the_way_out(desk: Open, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("import no_such_package.part\n\n\ndef run(data):\n    pass\n")
    one = desk("--entry-script", "score.py")
    assert one.ended() == 1
    assert one.err[-1].startswith("error: score.py does not import: ModuleNotFoundError: No module named 'no_such_pack")
    assert one.err[-1].endswith(
        f"; install its package (`pip install no_such_package`?) into {sys.prefix}, or put no_such_package.py beside "
        "the script\n"
    )


def test_a_source_directory_is_found_under_its_own_name_too(desk: Open, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "words.txt").write_text("hello")
    (tmp_path / "src" / "score.py").write_text(
        "def run(data):\n    return [open(path).read() for path in ('./src/words.txt', 'words.txt')]\n"
    )
    assert desk("--entry-script", "src/score.py").score({}) == ["hello", "hello"]


def test_a_model_is_found_by_its_file_name_as_v1_named_it(desk: Open, factor: Path) -> None:
    (factor / "score.py").write_text(
        "from azureml.core.model import Model\n\n\n"
        "def run(data):\n    return [open(Model.get_model_path(name)).read() for name in ('factor', 'factor.json')]\n"
    )
    assert desk("factor.json", "--entry-script", "score.py").score({}) == ["2", "2"]


def test_a_script_finds_each_of_several_models(desk: Open, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "score.py").write_text(
        "import os\nfrom azureml.core.model import Model\n\n\ndef run(data):\n"
        "    return [open(Model.get_model_path(name)).read() for name in ('one', 'two')] "
        "+ [sorted(os.listdir(os.environ['AZUREML_MODEL_DIR']))]\n"
    )
    one = desk("one.txt", "two.txt", "--entry-script", "score.py")
    assert one.score({}) == ["one", "two", ["one", "two"]]


def test_a_raw_script_is_tried_with_a_file_and_the_desk_asks_unseen(desk: Open, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(
        "from azureml.contrib.services.aml_request import rawhttp\n\n\n"
        "@rawhttp\ndef run(request):\n    return len(request.get_data())\n"
    )
    one = desk("--entry-script", "score.py", "--access-log")
    assert one.until(lambda: [line for line in one.out if "--data-binary @FILE" in line])
    assert one.until(lambda: [line for line in one.out if "put a file of yours for FILE" in line])
    assert requests.post(f"{one.address}/score", data=b"\xff\x00", timeout=PATIENCE).json() == 2
    one.says("POST /score 200")
    assert not [line for line in one.err if ".json 200" in line], "the desk's own requests"


def test_an_undeclared_script_is_tried_with_a_body_to_edit(desk: Open, factor: Path) -> None:
    one = desk("factor.json", "--entry-script", "score.py", "--json")
    said = json.loads(one.until(lambda: one.out)[0])
    assert said["try_it"].endswith("""-d '{"data": []}'""")
    assert said["hint"] == "edit the body: nothing declares what the script takes"


def test_machines_get_one_line_of_json_when_it_is_ready(desk: Open, ridge: Path) -> None:
    one = desk(str(ridge), "--json", "--log-format", "json")
    (line,) = one.until(lambda: one.out)
    said = json.loads(line)
    assert said["model"] == "plain:1"
    assert said["docs"] == said["address"] + "/docs"
    assert requests.get(said["address"], timeout=9).text == "Healthy"


def test_the_newest_version_of_the_project_is_served_with_its_script(
    desk: Open, make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace, environ = project(make_workspace, tmp_path)
    one = desk(cwd=workspace.root, **environ)
    assert one.score({"data": [1]}) == [3]
    assert "times:2 with score.py is served on" in one.out[0]
    assert "-d @samples/one.json" in "".join(one.out)


def test_a_version_of_the_registry_is_served_by_its_name(
    desk: Open, make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace, environ = project(make_workspace, tmp_path)
    one = desk("times:1", cwd=workspace.root, **environ)
    assert one.score({"data": [1]}) == [2]
    assert requests.get(f"{one.address}/score", timeout=9).headers["x-stageway-model-version"] == "times:1"


def project(make_workspace: Callable[..., Workspace], tmp_path: Path) -> tuple[Workspace, dict[str, str]]:
    """Make a project whose registry has two versions of a model that multiplies, by 2 and by 3."""
    from stageway.registries.base import NewVersion
    from stageway.tasks.base import open_registry

    workspace = make_workspace()
    (workspace.root / "src").mkdir()
    (workspace.root / "src" / "score.py").write_text(SCRIPT)
    (workspace.root / "samples").mkdir()
    (workspace.root / "samples" / "one.json").write_text('{"data": [1]}')
    serve = "serve: {entry-script: score.py, source-directory: src, samples: samples}\n"
    (workspace.root / "stageway.yml").write_text(f"model: times\n{serve}stages: {{dev: {{}}}}\n")
    registry = open_registry(workspace)
    for number in (2, 3):
        (tmp_path / "factor.json").write_text(str(number))
        registry.register(NewVersion(name="times", path=tmp_path / "factor.json"))
    return workspace, {"STAGEWAY_CACHE": str(workspace.cache)}
