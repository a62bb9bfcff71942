"""The arguments of ``python -m stageway.serving``, and how it ends: 0 stopped, 1 cannot serve, 2 wrong use."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Optional, Sequence

from stageway.errors import StagewayError
from stageway.serving import REQUIREMENTS
from stageway.serving.control import ControlFile
from stageway.serving.settings import Settings


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Serve until told to stop; the last line on stderr says why it could not."""
    settings = _settings(arguments)
    try:
        if settings.control:
            return _serve(settings, Path(settings.control).absolute())
        with tempfile.TemporaryDirectory(prefix="stageway-serving-") as scratch:
            return _serve(settings, Path(scratch, "control"))
    except StagewayError as error:
        return _cannot_start(error.message)


def _serve(settings: Settings, control: Path) -> int:
    if not control.exists():
        ControlFile.create(control, settings.workers).close()
    try:
        from stageway.serving.server import serve
    except ModuleNotFoundError as error:
        packages = ", ".join(one.partition(";")[0] for one in REQUIREMENTS)
        return _cannot_start("the package {!r} is missing; the layers have to hold {}".format(error.name, packages))
    serve(replace(settings, control=str(control)))
    return 0


def _cannot_start(sentence: str) -> int:
    print("stageway-serving: cannot start: {}".format(sentence), file=sys.stderr, flush=True)
    return 1


def _settings(arguments: Optional[Sequence[str]]) -> Settings:
    parser = argparse.ArgumentParser(prog="stageway-serving", description="Serve one model release over HTTP.")
    parser.add_argument("--uds", default="", help="path of the Unix socket to serve on")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
    parser.add_argument("--port", type=_natural, default=0, help="port to serve on; 0 takes a free one (default: 0)")
    parser.add_argument("--workers", type=_positive, default=1, help="worker processes (default: %(default)s)")
    parser.add_argument("--control", default="", help="control file shared with whoever started this")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--entry-script", default="", help="file with init() and run(data)")
    what.add_argument("--framework", default="", help="serve the one model file without a script, such as ScikitLearn")
    parser.add_argument("--contract", default="", help="contract (JSON) to use where the script declares none")
    parser.add_argument("--release", default="", help="id of the release, sent back with every reply")
    parser.add_argument("--model-version", default="", help="NAME:VERSION, sent back with every reply")
    parser.add_argument("--max-body", type=_positive, default=Settings.max_body, help="largest request, in bytes")
    parser.add_argument("--stop-timeout", type=_positive, default=Settings.stop_timeout, help="seconds to finish in")
    given = parser.parse_args(arguments)
    script = given.entry_script or ("" if given.framework else os.environ.get("AZUREML_ENTRY_SCRIPT", ""))
    if not script and not given.framework:
        parser.error("one of --entry-script and --framework is needed")
    if given.contract and not Path(given.contract).is_file():
        parser.error("--contract {}: no such file".format(given.contract))
    identity = [("x-stageway-release", given.release), ("x-stageway-model-version", given.model_version)]
    for name, value in identity:
        if not (value.isascii() and (value.isprintable())):
            parser.error("{!r} cannot be sent in the header {}".format(value, name))
    timeout = os.environ.get("SCORING_TIMEOUT_MS", "")
    return Settings(
        uds=given.uds,
        host=given.host,
        port=given.port,
        workers=given.workers,
        control=given.control,
        entry_script=script,
        framework=given.framework,
        contract=given.contract,
        max_body=given.max_body,
        scoring_timeout=float(timeout) / 1000 if timeout.isdigit() else Settings.scoring_timeout,
        stop_timeout=given.stop_timeout,
        service_name=os.environ.get("SERVICE_NAME", Settings.service_name),
        service_version=os.environ.get("SERVICE_VERSION", Settings.service_version),
        identity=[pair for pair in identity if pair[1]],
    )


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
