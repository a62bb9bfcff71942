"""Data collection: what comes back from the Parquet files is what was asked and answered, and a service never waits."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from stageway.serving import collection
from stageway.serving.collection import CORRELATION, Collected, Collector, ModelDataCollector
from stageway.serving.metrics import COLLECTED, DROPPED
from stageway.serving.parquet import Files, Place, Rows
from stageway.serving.replies import Reply
from stageway.serving.scorer import Call
from stageway.serving.settings import Settings

SCRIPT = """
import json, os
def run(data):
    rows = json.loads(data)["data"]
    return {"predict": [sum(row) for row in rows], "pid": os.getpid()}
"""
Row = dict[str, Any]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def rows(folder: Path, designation: str = "") -> list[Row]:
    """Return every row below *folder*, in the order of their files."""
    found = [path for path in files(folder) if not designation or designation in path.parts]
    return [row for path in found for row in parquet.ParquetFile(path).read().to_pylist()]


def data(row: Row) -> Row:
    return {name: value for name, value in row.items() if not name.startswith("$")}


def stopped(service: Any) -> None:
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0


# Over HTTP.


def test_inputs_and_outputs_of_all_workers_come_back_whole(start: Any, tmp_path: Path) -> None:
    given = ["--workers", "2", "--collect", str(tmp_path), "--model-version", "iris:7"]
    service = start(SCRIPT, *given, environment={"SERVICE_NAME": "flowers"}).ready()
    before = datetime.datetime.now(datetime.UTC)
    workers = set()
    for number in range(20):
        headers = {"x-request-id": f"r{number}", "authorization": "Bearer hidden", "cookie": "session=hidden"}
        workers.add(service.score({"data": [[number, 1], [number, 2]]}, headers).json["pid"])
    assert service.score({"wrong": 1}).status == 500
    assert service.ask("GET", "/swagger.json").status == 200
    stopped(service)

    assert len(workers) == 2
    today = before.strftime("%Y/%m/%d")
    folder = tmp_path / "flowers" / "iris" / "7"
    assert {path.parent for path in files(tmp_path)} == {folder / one / today for one in ("inputs", "outputs")}
    inputs = {(row[CORRELATION], row["$row"]): row for row in rows(folder, "inputs")}
    outputs = {(row[CORRELATION], row["$row"]): row for row in rows(folder, "outputs")}
    assert set(inputs) == set(outputs) == {(f"r{number}", row) for number in range(20) for row in (0, 1)}
    for (request, number), row in inputs.items():
        assert data(row) == {"f0": float(request[1:]), "f1": number + 1.0}
        answer = outputs[request, number]
        assert data(answer) == {"predict": row["f0"] + row["f1"], "pid": answer["pid"]}
        assert row["$aml_request_id"] == request
        assert (row["$aml_service_name"], row["$aml_model_name"], row["$aml_model_version"]) == ("flowers", "iris", "7")
        now = datetime.datetime.now(datetime.UTC)
        assert before <= row["$aml_dc_scoring_timestamp"] <= now
    assert not any(b"hidden" in path.read_bytes() for path in files(tmp_path))

    guide = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    snippet = guide.partition("```python\n")[2].partition("```")[0].replace('"collected"', repr(str(tmp_path)))
    found: dict[str, Any] = {}
    exec(snippet, found)
    assert (found["both"]["f0"] + found["both"]["f1"] == found["both"]["predict"]).sum() == 40


def test_what_is_left_out_is_in_no_file(start: Any, tmp_path: Path) -> None:
    script = """
import json
def run(data):
    given = json.loads(data)
    return json.dumps({"Token": given["token"], "predict": 1})
"""
    given = ["--collect", str(tmp_path), "--collect-without", "TOKEN", "--collect-without", "ssn"]
    service = start(script, *given).ready()
    body = {"token": "hunter2", "a": 1, "person": {"SSN": "hunter2", "age": 5}}
    assert service.score(body).status == 200
    assert service.ask("GET", "/score?token=hunter2&a=2").status == 200
    stopped(service)
    found = [data(row) for row in rows(tmp_path, "inputs")]
    assert found == [{"a": 1.0, "person": '{"age":5}'}, {"a": 2.0, "person": None}]
    assert [data(row) for row in rows(tmp_path, "outputs")] == [{"predict": 1.0}] * 2
    assert not any(b"hunter2" in path.read_bytes() for path in files(tmp_path))


def test_scripts_collect_with_v1s_class(start: Any, tmp_path: Path) -> None:
    script = """
from azureml.monitoring import ModelDataCollector
import json, numpy
def init():
    global inputs, predictions, more
    more = ModelDataCollector("best_model", designation="signals", region="west")
    ModelDataCollector("best_model", "signals", region="east")
    inputs = ModelDataCollector("best_model", identifier="inputs", feature_names=["a", "b"])
    predictions = ModelDataCollector("best_model", designation="predictions", feature_names=["sum"])
def run(raw):
    rows = numpy.array(json.loads(raw)["data"])
    headers = inputs.collect(rows, "mine")
    more.collect([1])
    result = rows.sum(axis=1)
    predictions.collect(predictions.add_correlations(result.tolist(), headers))
    return result.tolist()
"""
    service = start(script, "--collect", str(tmp_path), "--model-version", "best_model:3").ready()
    assert service.score({"data": [[1, 2], [3, 4]]}, {"x-request-id": "r1"}).json == [3, 7]
    stopped(service)
    folder = tmp_path / "ML service" / "best_model" / "3"
    given = [row for row in rows(folder, "inputs") if "a" in row]
    assert [data(row) for row in given] == [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
    predicted = rows(folder, "predictions")
    assert [data(row) for row in predicted] == [{"sum": 3.0}, {"sum": 7.0}]
    assert {row[CORRELATION] for row in given} == {row[CORRELATION] for row in predicted} == {"mine"}
    (more,) = rows(folder, "signals")
    assert more[CORRELATION] == more["$aml_request_id"] == "r1"
    assert sum("ModelDataCollector: region is not known here and is left out" in line for line in service.lines) == 1


def test_without_collection_v1s_class_is_one_line_in_the_log(start: Any) -> None:
    script = """
from stageway.serving.collection import ModelDataCollector
def init():
    global collectors
    collectors = [ModelDataCollector("m", designation=one) for one in ("inputs", "predictions")]
def run(raw):
    return [type(one.collect([1, 2])).__name__ for one in collectors]
"""
    service = start(script).ready()
    assert service.score([1]).json == ["dict", "dict"]
    assert sum("ModelDataCollector is without effect" in line for line in service.lines) == 1


def test_a_release_without_pyarrow_does_not_start(start: Any, tmp_path: Path) -> None:
    site = Path(sysconfig.get_path("purelib"))
    (tmp_path / "site").mkdir()
    for name in ("granian", "orjson", "click"):
        (tmp_path / "site" / name).symlink_to(site / name)
    service = start(SCRIPT, "--collect", str(tmp_path), environment={"STAGEWAY_SITE": str(tmp_path / "site")})
    assert service.ended() == 1
    assert "add pyarrow to the dependencies" in service.lines[-1]


def test_a_folder_that_cannot_be_made_does_not_start(start: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    service = start(SCRIPT, "--collect", str(tmp_path / "file" / "data"))
    assert service.ended() == 1
    assert service.lines[-1].endswith("give a folder that can be written")


# In this process.


class Counts(dict[int, int]):
    def add(self, cell: int, amount: int) -> None:
        self[cell] = self.get(cell, 0) + amount


class Begun:
    """A collector that has begun, and what it counts."""

    def __init__(self, folder: Path, *, seconds: float = 600.0, **settings: Any) -> None:
        self.counts = Counts()
        made = Settings(collect=str(folder), model="iris:7", **settings)
        self.collector = Collector(made, self.counts.add, seconds=seconds)
        self.collector.start()

    def offer(self, body: bytes, reply: bytes = b"[1]", status: int = 200, method: str = "POST") -> None:
        call = Call(method, "/score", body, "", "application/json", dict)
        self.collector.offer(call, Reply(status, reply), "r")


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Begun]]:
    begun: list[Begun] = []

    def one(**settings: Any) -> Begun:
        begun.append(Begun(tmp_path, **settings))
        return begun[-1]

    yield one
    collection.activate(None)
    for made in begun:
        made.collector.close()


def test_a_file_appears_when_there_is_enough_for_one(
    begin: Callable[..., Begun], tmp_path: Path, until: Callable[..., None]
) -> None:
    begun = begin()
    body = json.dumps([{"a": "x" * 1_000_000}]).encode()
    for _ in range(3):
        begun.offer(body)
    assert not files(tmp_path)
    for _ in range(2):
        begun.offer(body)
    until(lambda: begun.counts.get(COLLECTED, 0) >= 5)
    assert len(rows(tmp_path, "inputs")) == 5


def test_a_file_appears_when_its_time_has_come(
    begin: Callable[..., Begun], tmp_path: Path, until: Callable[..., None]
) -> None:
    begun = begin(seconds=0.05)
    begun.offer(b"[1, 2]")
    until(lambda: begun.counts.get(COLLECTED))
    assert [data(row) for row in rows(tmp_path, "inputs")] == [{"value": 1.0}, {"value": 2.0}]


def test_the_queue_is_bounded_and_what_does_not_fit_is_counted(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()
    begun.offer(b"[" + b"1," * 3_000_000 + b"1]")
    assert begun.counts == {DROPPED: 1}
    begun.collector._held = collection.QUEUE_BYTES
    begun.offer(b"[1]")
    assert begun.counts == {DROPPED: 2}
    begun.collector._held = 0
    begun.offer(b"[1]")
    begun.collector.close()
    begun.offer(b"[1]")
    assert begun.counts == {DROPPED: 3, COLLECTED: 1}


def test_what_failed_and_what_asks_for_options_is_not_collected(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()
    begun.offer(b"[1]", status=400)
    begun.offer(b"[1]", status=500)
    begun.offer(b"", method="OPTIONS")
    begun.collector.close()
    assert not files(tmp_path)
    assert not begun.counts


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 350, 650), (1.0, 1000, 1000)])
def test_a_share_of_the_requests_is_collected(
    begin: Callable[..., Begun], tmp_path: Path, share: float, least: int, most: int
) -> None:
    begun = begin(collect_share=share)
    for _ in range(1000):
        begun.offer(b"[1]")
    begun.collector.close()
    assert least <= len(rows(tmp_path, "inputs")) <= most
    assert len(rows(tmp_path, "inputs")) == len(rows(tmp_path, "outputs"))


def test_inputs_and_predictions_of_a_script_are_in_the_same_share(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin(collect_share=0.5)
    collection.activate(begun.collector)
    inputs, predictions = (ModelDataCollector("iris", designation=one) for one in ("inputs", "predictions"))
    for number in range(100):
        headers = inputs.collect([number])
        predictions.collect(predictions.add_correlations([number], headers))
    begun.collector.close()
    found = [{row[CORRELATION] for row in rows(tmp_path, one)} for one in ("inputs", "predictions")]
    assert found[0] == found[1]
    assert 10 < len(found[0]) < 90


def test_a_binary_body_is_kept_as_length_and_digest(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()
    picture = b"\x89PNG" + os.urandom(1000)
    begun.offer(picture)
    begun.collector.close()
    (row,) = rows(tmp_path, "inputs")
    assert row["$bytes"] == 1004
    assert row["$sha256"] == hashlib.sha256(picture).hexdigest()
    assert not any(picture[4:50] in path.read_bytes() for path in files(tmp_path))
    assert not any(base64.b64encode(picture)[8:50] in path.read_bytes() for path in files(tmp_path))


def test_values_of_every_kind_come_back(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()
    big = 2**60 + 1
    records = [
        {"n": 1, "t": "a", "b": True, "mixed": 1, "big": big, "list": [1, 2], "none": None},
        {"n": 2.5, "t": "ü\n", "b": None, "mixed": "x", "big": 0, "list": [], "late": 1},
    ]
    begun.offer(json.dumps(records).encode())
    begun.offer(b'[{"t": "\\ud800"}]')
    begun.collector.close()
    first, second, third = rows(tmp_path, "inputs")
    common = {"n": 1.0, "t": "a", "b": True, "mixed": "1", "big": str(big), "list": "[1,2]", "none": None, "late": None}
    assert data(first) == common
    expected = {"n": 2.5, "t": "ü\n", "b": None, "mixed": "x", "big": "0", "list": "[]", "none": None, "late": 1.0}
    assert data(second) == expected
    assert {name for name, value in third.items() if value is not None} >= {"$row", CORRELATION}


@pytest.mark.parametrize(
    "given",
    [
        [[1.5, 2], [3, 4]],
        np.array([[1.5, 2], [3, 4]]),
        pd.DataFrame({"a": [1.5, 3], "b": [2, 4]}),
        np.array([[1.5, 2], [3, 4]], dtype=np.float32),
    ],
    ids=["list", "array", "table", "small floats"],
)
def test_v1s_class_takes_lists_arrays_and_tables_as_they_are_at_the_call(
    begin: Callable[..., Begun], tmp_path: Path, given: Any
) -> None:
    begun = begin()
    collection.activate(begun.collector)
    collector = ModelDataCollector("other", "signals", ["a", "b"], "s/g/w", "default", "9", "name")
    headers = collector.collect(given, "mine")
    if isinstance(given, list):
        given[0][0] = 99
    elif isinstance(given, np.ndarray):
        given[:] = 99
    begun.collector.close()
    assert headers == {CORRELATION: "mine"}
    folder = tmp_path / "ML service" / "other" / "9" / "signals"
    assert [data(row) for row in rows(folder)] == [{"a": 1.5, "b": 2.0}, {"a": 3.0, "b": 4.0}]
    assert {row["$aml_workspace"] for row in rows(folder)} == {"s/g/w"}


def test_numbers_of_a_table_keep_every_digit(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()
    collection.activate(begun.collector)
    table = pd.DataFrame({"x": [0.1 + 0.2], "when": [pd.Timestamp("2026-01-02")], "who": ["a"]})
    ModelDataCollector("m").collect(table)
    begun.collector.close()
    assert [data(row) for row in rows(tmp_path)] == [{"x": 0.1 + 0.2, "when": "2026-01-02T00:00:00", "who": "a"}]


def test_names_lead_to_no_other_folder(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin(service_name="../../up")
    collection.activate(begun.collector)
    ModelDataCollector("../m", designation="a/../../b", model_version="..").collect([1])
    begun.collector.close()
    (path,) = files(tmp_path)
    assert path.relative_to(tmp_path).parts[:4] == ("_.._up", "_m", "default", "a_.._.._b")


def test_the_oldest_files_go_when_there_are_too_many(tmp_path: Path) -> None:
    made = Files(str(tmp_path), "service", 10**9)
    made.open()
    place = Place("m", "1", "inputs")
    for number in range(6):
        table = Rows()
        table.add({"x": [number] * 1000}, {CORRELATION: "r", "$timestamp": datetime.datetime.now(datetime.UTC)})
        made.write(place, table)
        newest = max(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000 + number, 1000 + number))
    sizes = [path.stat().st_size for path in files(tmp_path)]
    other = tmp_path / "other-service.parquet"
    other.write_bytes(bytes(10**5))
    Files(str(tmp_path), "service", sum(sizes[:2]) + 10).trim()
    assert {data(row)["x"] for row in rows(tmp_path / "service")} == {4.0, 5.0}
    assert other.exists()


def test_what_an_ended_process_left_half_written_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "service" / "m"
    folder.mkdir(parents=True)
    old, young = folder / ".a.parquet.part", folder / ".b.parquet.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    Files(str(tmp_path), "service", 1).open()
    assert not old.exists()
    assert young.exists()


KILLED = """
import sys, threading
from stageway.serving.collection import Collector
from stageway.serving.replies import Reply
from stageway.serving.scorer import Call
from stageway.serving.settings import Settings
collector = Collector(Settings(collect=sys.argv[1]), lambda cell, amount: print("counted", flush=True), seconds=0.01)
collector.start()
number = 0
while True:
    call = Call("POST", "/score", b'[{"x": %d, "y": "%s"}]' % (number, b"z" * 500), "", "", dict)
    collector.offer(call, Reply(200, b"[1]"), str(number))
    number += 1
    threading.Event().wait(0.0005)
"""


def test_after_a_kill_every_file_is_whole_and_holds_all_that_was_counted(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(20):
            assert process.stdout.readline() == b"counted\n"
        process.kill()
    found = [int(row["x"]) for row in rows(tmp_path, "inputs")]
    assert len(files(tmp_path)) >= 40
    assert sorted(found) == list(range(len(found)))


FULL = """
import logging, resource, signal, sys, time
logging.basicConfig(level="INFO", format="%(message)s")
from stageway.serving import collection
from stageway.serving.metrics import DROPPED
collection.PAUSE_SECONDS = 0.2
counts = {}
def count(cell, amount):
    counts[cell] = counts.get(cell, 0) + amount
collector = collection.Collector(collection.Settings(collect=sys.argv[1]), count, seconds=0.02)
collector.start()
def offer():
    call = collection.Call("POST", "/score", b'[{"x": 1}]', "", "", dict)
    collector.offer(call, collection.Reply(200, b"[1]"), "r")
def until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        offer()
        time.sleep(0.005)
until(lambda: len(counts) == 1)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
before = counts.get(DROPPED, 0)
until(lambda: counts.get(DROPPED, 0) > before + 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
before = counts[collection.COLLECTED]
until(lambda: counts[collection.COLLECTED] > before)
collector.close()
"""


def test_a_disk_that_is_full_pauses_collection_with_one_line(tmp_path: Path) -> None:
    # A limit on the size of files makes the same writes fail as a full disk does, for this one process.
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "--collect" in line]
    assert len(lines) == 2, lines
    assert "is not collected until that is put right; requests are served" in lines[0]
    assert "collected again" in lines[1]
    assert not list(tmp_path.rglob("*.part"))
    assert all(row["x"] == 1 for row in rows(tmp_path, "inputs"))


def test_a_piece_that_cannot_be_read_costs_no_other(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()

    def broken() -> dict[str, list[Any]]:
        raise RuntimeError

    begun.collector.put(Collected(Place("m", "1", "inputs"), broken, "r", None, "", 0.0), 10)
    begun.offer(b"[1]")
    begun.collector.close()
    assert len(rows(tmp_path, "inputs")) == 1
    assert begun.counts == {COLLECTED: 1, DROPPED: 1}


def test_a_name_with_half_a_character_costs_nothing(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()
    begun.offer(b'{"data":[[1,2,3]]}')
    begun.offer(b'{"data":[[1,2,3]],"\\ud800":1}')
    begun.collector._flush()
    begun.offer(b'{"data":[[4,5,6]]}')
    begun.collector.close()
    assert begun.counts == {COLLECTED: 3}
    first, second, third = map(data, rows(tmp_path, "inputs"))
    assert first == {"f0": 1, "f1": 2, "f2": 3, "\\ud800": None}
    assert second == {"f0": 1, "f1": 2, "f2": 3, "\\ud800": 1}
    assert third == {"f0": 4, "f1": 5, "f2": 6}


def test_a_piece_that_no_file_takes_costs_no_other_and_no_pause(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()

    def unfit() -> dict[str, list[Any]]:
        return {"\ud800": [1]}

    begun.offer(b"[[1, 2]]")
    begun.collector.put(Collected(Place("iris", "7", "inputs"), unfit, "r", None, "", 0.0), 10)
    begun.offer(b'[{"a": 1}]')
    begun.collector._flush()
    begun.offer(b"[[3, 4]]")
    begun.collector.close()
    assert begun.counts == {COLLECTED: 3, DROPPED: 1}
    kept = [{name: value for name, value in data(row).items() if value is not None} for row in rows(tmp_path, "inputs")]
    assert kept == [{"f0": 1, "f1": 2}, {"a": 1}, {"f0": 3, "f1": 4}]


def test_a_file_is_not_mostly_holes(begin: Callable[..., Begun], tmp_path: Path) -> None:
    begun = begin()
    begun.offer(json.dumps({str(number): 1 for number in range(900)}).encode())
    begun.offer(json.dumps([1] * 10_000).encode())
    begun.collector.close()
    widths = [parquet.ParquetFile(path).metadata.num_columns for path in files(tmp_path) if "inputs" in path.parts]
    assert [width > 900 for width in widths] == [True, False]


def test_the_queue_takes_little_more_memory_than_its_bytes(begin: Callable[..., Begun]) -> None:
    begun = begin()
    body = os.urandom(400_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(500):
        begun.offer(bytes(body) + b"x")
    begun.collector.close()
    assert begun.counts[COLLECTED] + begun.counts.get(DROPPED, 0) == 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000
