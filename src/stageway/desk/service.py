"""The server process of the desk: started with this environment's packages, its log read line by line.

Its log goes through us, so that what it says about itself (ready, reloaded, cannot start) is told in the desk's words,
and everything else as it is. It is a process group of its own: Ctrl-C reaches us, and we end it in order. If we are
killed, it sees the pipe between us close, and stops by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stageway.errors import ConfigError, RefusedError

PREFIX, LOGGER = "stageway-serving: ", "stageway.serving"
"""How the server's own lines are told from the script's, in text and in JSON."""
READY = re.compile(r"ready on (?P<address>https?://\S+?), ")
CANNOT_START = re.compile(r"cannot start: (?P<why>.+)")
RELOADED = re.compile(r"reloaded, ")
NOT_RELOADED = re.compile(r"not reloaded: (?P<why>.+?)(; the workers from before go on)?$")
WRONG_USE = re.compile(r"error: (?P<why>.+)")
USAGE = "usage: stageway-serving "
MISSING = re.compile(r"ModuleNotFoundError: No module named '(?P<name>\w+)[\w.]*'")
STOP_SECONDS = 5
LOOK_SECONDS = 0.5
"""How long the main thread may wait in one piece. A signal that another thread received is handled only after it."""
OWN_REQUESTS = f"stageway-desk-{uuid.uuid4()}"
"""Id of the requests that the desk itself makes; nobody asked to see them in the log."""


class Service:
    """One server. *on_log* gets what it and the script log; *on_reload* gets ``""`` or why it was not done."""

    def __init__(self, on_log: Callable[[str], None], on_reload: Callable[[str], None]) -> None:
        self._on_log, self._on_reload = on_log, on_reload
        self._settled = threading.Event()
        self._why = ""
        self._wrong_use = self._stopped = self._usage = False
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def start(self, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> str:
        """Start it in *folder* and return its address when it answers, or nothing when it was stopped before.

        Raises ``RefusedError`` with its own sentence when it does not start, ``ConfigError`` when the arguments are
        wrong.
        """
        # Our end is closed with us, however we end; no other process has it.
        its, self._ours = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stageway.serving", *arguments, "--lifeline", str(its)],
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,
                pass_fds=(its,),
            )
        finally:
            os.close(its)
        self._reader = threading.Thread(target=self._read, args=(self._process,), name="log", daemon=True)
        self._reader.start()
        while not self._settled.wait(LOOK_SECONDS):
            pass
        if not self.address and not self._stopped:
            self._raise()
        return self.address

    def wait(self) -> None:
        """Return when it was stopped; ``RefusedError`` when it ended by itself."""
        assert self._process is not None
        while self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
        code = self._process.wait()
        self._reader.join(STOP_SECONDS)
        if code and not self._stopped:
            self._raise()

    def reload(self) -> None:
        """Ask it to load everything anew; ``on_reload`` is told how that went."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it: what is in flight is finished, within seconds; a second call does not wait."""
        process, self._stopped = self._process, True
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS + 1)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and all its workers now. Waits for nothing, as a signal's handler must not: who waits goes on then."""
        self._stopped = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._take(line.rstrip("\n"))
        process.wait()
        os.close(self._ours)
        self._settled.set()

    def _take(self, line: str) -> None:
        sentence = _own(line)
        if (found := READY.match(sentence)) and not self.address:
            self.address = found["address"]
            self._settled.set()
        elif found := CANNOT_START.match(sentence):
            self._why = found["why"]
        elif found := WRONG_USE.match(sentence):
            self._why, self._wrong_use, self._usage = found["why"].removeprefix("argument "), True, False
        elif found := NOT_RELOADED.match(sentence):
            self._on_reload(found["why"] + _way_out(found["why"]))
        elif RELOADED.match(sentence):
            self._on_reload("")
        elif line.startswith(USAGE) and not self.address:
            # Its arguments have other names and a page of their own here; the error comes below them.
            self._usage = True
        elif not self._usage and OWN_REQUESTS not in line:
            self._on_log(line)

    def _raise(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        self._reader.join()
        if self._wrong_use:
            raise ConfigError(self._why)
        if code < 0:
            raise RefusedError(f"the service was ended by signal {-code} ({signal.Signals(-code).name})")
        raise RefusedError(
            self._why + _way_out(self._why) or f"the service ended with exit code {code}; its log above says why"
        )


def _way_out(why: str) -> str:
    """Return what to do where a module is missing; the server itself says it of v1's packages."""
    found = MISSING.search(why)
    if found is None or found["name"] == "azureml":
        return ""
    name = found["name"]
    return f"; install its package (`pip install {name}`?) into {sys.prefix}, or put {name}.py beside the script"


def _own(line: str) -> str:
    """Return what the server says of itself in *line*, in text or JSON; nothing where it is the script's line."""
    if line.startswith("{"):
        try:
            found = json.loads(line)
        except ValueError:
            return ""
        return str(found.get("message", "")) if found.get("logger") == LOGGER else ""
    return line.removeprefix(PREFIX) if line.startswith(PREFIX) else ""
