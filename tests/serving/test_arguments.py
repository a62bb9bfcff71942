"""From arguments and v1's variables to settings, and what is said where that cannot be."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from stageway.serving import arguments
from stageway.serving.settings import Settings

SCRIPT = ("--entry-script", "score.py")
BY_MAIN = {"identity", "service_name", "service_version"}


def test_every_setting_has_an_argument_or_a_variable(tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text("{}")
    given = [
        *("--host", "0.0.0.0", "--port", "80", "--workers", "3", "--control", "control"),
        *("--entry-script", "score.py", "--contract", str(tmp_path / "contract.json"), "--accelerated", str(tmp_path)),
        *("--batching", "on", "--batch-rows", "7", "--concurrency", "2", "--queue-wait", "0.5", "--timeout", "1.5"),
        *("--scoring-timeout", "9", "--max-body", "1000", "--body-timeout", "0", "--idle-timeout", "5"),
        *("--worker-timeout", "6", "--stop-timeout", "4", "--auth", "auth.json"),
        *("--tls-certificate", "c.pem", "--tls-key", "k.pem", "--cors", "https://a", "--cors", "https://b"),
        *("--prefix", "models/one/", "--docs", "--log-format", "json", "--access-log", "--telemetry"),
        *("--collect", "data", "--collect-share", "0.5", "--collect-without", "name", "--collect-keep", "9"),
        *("--model-version", "diabetes:2", "--release", "r1", "--lifeline", "0"),
    ]
    named = {"SERVICE_NAME": "diabetes", "SERVICE_VERSION": "2"}
    found = arguments.settings(given, named)
    assert (found.cors, found.prefix, found.timeout) == (["https://a", "https://b"], "/models/one", 1.5)
    assert found.identity == [("x-stageway-release", "r1"), ("x-stageway-model-version", "diabetes:2")]
    plain = arguments.settings(["--framework", "ScikitLearn", "--uds", "s"], {})
    same = {one.name for one in fields(Settings) if getattr(found, one.name) == getattr(Settings(), one.name)}
    assert same == {"uds", "framework"}
    changed = {one.name for one in fields(Settings) if getattr(plain, one.name) != getattr(Settings(), one.name)}
    assert changed == {"uds", "framework"}


V1 = {
    "WORKER_COUNT": ("2", "workers", 2),
    "WORKER_TIMEOUT": ("30", "worker_timeout", 30.0),
    "SCORING_TIMEOUT_MS": ("1500", "scoring_timeout", 1.5),
    "AML_CORS_ORIGINS": ("https://a, https://b", "cors", ["https://a", "https://b"]),
    "SERVICE_PATH_PREFIX": ("one/two", "prefix", "/one/two"),
    "AML_APP_INSIGHTS_ENABLED": ("True", "telemetry", True),
    "AML_MODEL_DC_STORAGE_ENABLED": ("true", "collect", "modeldata"),
    "AZUREML_ENTRY_SCRIPT": ("other.py", "entry_script", "other.py"),
    "SERVICE_NAME": ("diabetes", "service_name", "diabetes"),
    "SERVICE_VERSION": ("3", "service_version", "3"),
}


@pytest.mark.parametrize("variable", V1)
def test_a_variable_of_v1_counts_where_no_argument_is_given(variable: str) -> None:
    text, name, value = V1[variable]
    given = () if variable == "AZUREML_ENTRY_SCRIPT" else SCRIPT
    assert getattr(arguments.settings(given, {variable: text}), name) == value
    if given:
        # Unset and empty are the same.
        assert getattr(arguments.settings(given, {variable: ""}), name) == getattr(Settings(), name)


def test_an_argument_wins_over_its_variable() -> None:
    environment = {"WORKER_COUNT": "2", "AML_CORS_ORIGINS": "https://a", "AZUREML_ENTRY_SCRIPT": "other.py"}
    found = arguments.settings([*SCRIPT, "--workers", "5", "--cors", "*"], environment)
    assert (found.workers, found.cors, found.entry_script) == (5, ["*"], "score.py")
    assert arguments.settings(["--framework", "Onnx"], environment).entry_script == ""


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        (SCRIPT, {"WORKER_COUNT": "many"}, "environment variable WORKER_COUNT: 'many' is not a whole number from 1 on"),
        (SCRIPT, {"SCORING_TIMEOUT_MS": "0"}, "environment variable SCORING_TIMEOUT_MS: '0' is not a number of milli"),
        (SCRIPT, {"AML_APP_INSIGHTS_ENABLED": "maybe"}, "AML_APP_INSIGHTS_ENABLED: 'maybe' is neither true nor false"),
        ((*SCRIPT, "--workers", "0"), {}, "argument --workers: '0' is not a whole number from 1 on"),
        ((*SCRIPT, "--port", "-1"), {}, "argument --port: '-1' is not a port, 0 to 65535"),
        ((*SCRIPT, "--port", "65536"), {}, "argument --port: '65536' is not a port, 0 to 65535"),
        ((*SCRIPT, "--timeout", "soon"), {}, "argument --timeout: 'soon' is not a number of seconds; 0 is off"),
        ((*SCRIPT, "--timeout", "nan"), {}, "argument --timeout: 'nan' is not a number of seconds; 0 is off"),
        ((*SCRIPT, "--queue-wait", "-1"), {}, "argument --queue-wait: '-1' is not a number of seconds; 0 is off"),
        ((*SCRIPT, "--scoring-timeout", "0"), {}, "--scoring-timeout: '0' is not a number of seconds above 0"),
        ((*SCRIPT, "--collect-share", "1.1"), {}, "--collect-share: '1.1' is not a share between 0 and 1"),
        ((*SCRIPT, "--batching", "maybe"), {}, "argument --batching: invalid choice: 'maybe'"),
        ((*SCRIPT, "--accelerated", "nowhere"), {}, "--accelerated nowhere: no such folder"),
        ((*SCRIPT, "--uds", "s", "--port", "1"), {}, "argument --port: not allowed with argument --uds"),
        ((*SCRIPT, "--framework", "Onnx"), {}, "argument --framework: not allowed with argument --entry-script"),
        ((*SCRIPT, "--work", "2"), {}, "unrecognized arguments: --work 2"),
        ((), {}, "one of --entry-script and --framework is needed"),
    ],
)
def test_what_cannot_be_is_said_with_its_name(
    given: tuple[str, ...], environment: dict[str, str], words: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.settings(given, environment)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
