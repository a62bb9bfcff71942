"""``python -S -s -P -m stageway.serving.convert --framework NAME --samples FOLDER --into FOLDER``.

Exit code 0 with ``answer.json`` in the folder: ``{"reason": ..., "passing": ...}``, where a passing reason may be gone
another time, or ``{"speed": ...}`` beside ``form/``, which then holds ``model.onnx`` and ``report.json``. Ends when its
standard input is closed: its caller holds the other end.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import threading
from typing import Any

from stageway.serving.layers import add_layers


def main() -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(prog="stageway-convert", description="Make a verified ONNX form of a model.")
    parser.add_argument("--framework", required=True, help="what serves the model, such as ScikitLearn")
    parser.add_argument("--samples", required=True, help="folder of request bodies")
    parser.add_argument("--into", required=True, help="folder for what is made")
    parser.add_argument("--memory", type=int, default=0, help="most memory that may be asked for, in bytes")
    given = parser.parse_args()
    if given.memory:
        resource.setrlimit(resource.RLIMIT_AS, (given.memory, given.memory))
    threading.Thread(target=_end_with_caller, args=(sys.stdin.buffer,), daemon=True).start()
    add_layers()

    from stageway.serving.convert.verify import run

    return run(given.framework, given.samples, given.into)


def _end_with_caller(pipe: Any) -> None:
    pipe.read()
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
