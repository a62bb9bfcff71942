"""A small scoring server for the tests of the target: HTTP/1.1 on a Unix socket, nothing to install, up at once.

It keeps what the keeper relies on: ``GET /``, the drain flag, a finish on SIGTERM, the sentence of a failed start.
``STANDIN`` in its environment is JSON: version, fail, slow_start, crash_after, chatter, silent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

DRAIN = 0


class Server:
    def __init__(self, behaviour: dict[str, Any], control: str) -> None:
        self.behaviour = behaviour
        self.control = control
        self.busy = 0
        self.idle: set[asyncio.StreamWriter] = set()
        self.closing = False

    def draining(self) -> bool:
        with Path(self.control).open("rb") as file:
            return file.read(1) == b"\1"

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                self.busy += 1
                try:
                    if await self.reply(head.decode(), reader, writer):
                        break
                finally:
                    self.busy -= 1
        self.idle.discard(writer)
        writer.close()

    async def reply(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = head.split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status = "200 OK"
        if path.startswith("/slow/"):
            await asyncio.sleep(float(path.removeprefix("/slow/")))
        if path.startswith("/die"):
            os._exit(3)
        if path.startswith("/say"):
            print(body.decode(), flush=True)
        if path.startswith("/large/"):
            body = b"x" * int(path.removeprefix("/large/"))
        close = headers.get("connection", "").lower() == "close" or self.draining()
        answer = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nx-version: {self.behaviour['version']}\r\n"
        answer += f"x-pid: {os.getpid()}\r\n" + ("connection: close\r\n" if close else "") + "\r\n"
        if path.startswith("/pieces"):
            for piece in (answer[:10], answer[10:]):
                writer.write(piece.encode())
                await writer.drain()
                await asyncio.sleep(0.02)
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.005)
        else:
            writer.write(answer.encode() + (body if method != "HEAD" else b""))
            await writer.drain()
        return close

    async def run(self, path: str) -> None:
        await asyncio.sleep(self.behaviour.get("slow_start", 0))
        if self.behaviour.get("silent"):
            await asyncio.sleep(3600)
        server = await asyncio.start_unix_server(self.client, path)
        end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
        print(f"stand-in {self.behaviour['version']} listens", flush=True)
        if (after := self.behaviour.get("crash_after")) is not None:
            asyncio.get_running_loop().call_later(after, os._exit, 7)
        await end.wait()
        server.close()
        while self.busy:
            await asyncio.sleep(0.01)
        for writer in list(self.idle):
            writer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", required=True)
    parser.add_argument("--control", required=True)
    arguments = parser.parse_args()
    behaviour = json.loads(os.environ["STANDIN"])
    for number in range(behaviour.get("chatter", 0)):
        print(f"line {number} " + "." * 200)
    if "fail" in behaviour:
        print("Traceback (most recent call last):", file=sys.stderr)
        print(f"stageway-serving: cannot start: {behaviour['fail']}", file=sys.stderr)
        sys.exit(1)
    asyncio.run(Server(behaviour, arguments.control).run(arguments.uds))


if __name__ == "__main__":
    main()
