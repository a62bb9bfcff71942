"""A command of its own that applies a version in a workspace of the tests: ``apply.py WORKSPACE VERSION START``."""

import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("conftest", Path(__file__).parent / "conftest.py")
assert spec is not None
assert spec.loader is not None
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)

local = conftest.Local(Path(sys.argv[1]))
local.target.apply(local.want(int(sys.argv[2]), slow_start=float(sys.argv[3])))
