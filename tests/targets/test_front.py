"""The front between real sockets: what reaches a client, whatever way requests and replies are cut into pieces."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop

from stageway.targets.local.front import Backend, Front

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario()

    uvloop.run(limited())


def echo(name: str) -> Handler:
    """A server that answers every request with its name and the request's body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            body = await reader.readexactly(_length(head))
            writer.write(reply(name.encode() + b":" + body))

    return serve


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def reply(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n%s" % (len(body), extra, body)


def request(body: bytes = b"", method: bytes = b"POST", extra: bytes = b"") -> bytes:
    return b"%s / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%s\r\n%s" % (method, len(body), extra, body)


class Place:
    """A front with some servers behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.front = Front(asyncio.get_running_loop(), "diabetes-dev")
        self.port = 0
        self.servers: dict[str, asyncio.Server] = {}
        self.connections: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, name: str, handler: Handler, share: float = 1.0) -> Backend:
        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.tasks.add(task)
            self.connections[name] += 1
            try:
                await handler(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()
                self.writers.append(writer)

        path = self.folder / f"{name}.sock"
        self.servers[name] = await asyncio.start_unix_server(counted, path)
        backend = Backend(name, str(path))
        backend.ready = True
        self.front.backends.append(backend)
        self.share(**{name: share})
        return backend

    def share(self, **shares: float) -> None:
        for backend in self.front.backends:
            backend.weight = round(shares.get(backend.name, backend.weight / 10_000) * 10_000)
        self.front.settle()

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    with TemporaryDirectory(dir="/tmp") as folder:
        made = Place(Path(folder))
        listening = socket.create_server(("127.0.0.1", 0))
        made.port = listening.getsockname()[1]
        await made.front.listen(listening)
        yield made
        for writer in made.writers:
            writer.close()
        await made.front.close(0.1)
        for server in made.servers.values():
            server.close()
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in made.writers), return_exceptions=True)


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return await reader.readexactly(_length(head))


def test_a_keep_alive_connection_moves_between_two_requests() -> None:
    async def scenario() -> None:
        async with place() as here:
            await here.serve("old", echo("old"))
            reader, writer = await here.client()
            writer.write(request(b"1"))
            assert await answer(reader) == b"old:1"
            await here.serve("new", echo("new"))
            here.share(old=0)
            writer.write(request(b"2"))
            assert await answer(reader) == b"new:2"
            assert here.front.backends[0].clients == set()

    run(scenario)


def test_a_request_under_way_is_answered_by_who_got_it() -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nol")
            await go_on.wait()
            writer.write(b"d:1!")

    async def scenario() -> None:
        async with place() as here:
            old = await here.serve("old", slow)
            reader, writer = await here.client()
            writer.write(request())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await here.serve("new", echo("new"))
            here.share(old=0)
            assert not await here.front.emptied(old, 0.05)
            go_on.set()
            assert await reader.readexactly(6) == b"old:1!"
            assert await here.front.emptied(old, 5)
            writer.write(request(b"2"))
            assert await answer(reader) == b"new:2"

    run(scenario)


def test_a_head_in_two_pieces_keeps_its_revision() -> None:
    async def scenario() -> None:
        async with place() as here:
            await here.serve("old", echo("old"))
            reader, writer = await here.client()
            writer.write(request(b"1"))
            assert await answer(reader) == b"old:1"
            whole = request(b"2")
            writer.write(whole[:9])
            await asyncio.sleep(0.05)
            await here.serve("new", echo("new"))
            here.share(old=0)
            writer.write(whole[9:])
            assert await answer(reader) == b"old:2"
            writer.write(request(b"3"))
            assert await answer(reader) == b"new:3"

    run(scenario)


def test_a_client_that_waits_for_100_continue_keeps_its_revision() -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            writer.write(reply(b"old:" + await reader.readexactly(_length(head))))

    async def scenario() -> None:
        async with place() as here:
            await here.serve("old", patient)
            reader, writer = await here.client()
            whole = request(b"body", extra=b"expect: 100-continue\r\n")
            writer.write(whole[:-4])
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            await here.serve("new", echo("new"))
            here.share(old=0)
            writer.write(whole[-4:])
            assert await answer(reader) == b"old:body"
            writer.write(request(b"2"))
            assert await answer(reader) == b"new:2"

    run(scenario)


def test_pipelined_requests_stay_in_order() -> None:
    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", echo("a"))
            reader, writer = await here.client()
            writer.write(b"".join(request(b"%d" % number) for number in range(50)))
            assert [await answer(reader) for _ in range(50)] == [b"a:%d" % number for number in range(50)]

    run(scenario)


def test_the_reply_to_head_has_no_body_and_the_connection_still_moves() -> None:
    async def heads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            writer.write(
                reply(b"hello").partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head[:4] == b"HEAD" else reply(b"old")
            )

    async def scenario() -> None:
        async with place() as here:
            await here.serve("old", heads)
            reader, writer = await here.client()
            for _ in range(3):
                writer.write(request(method=b"HEAD"))
                assert b"content-length: 5" in await reader.readuntil(b"\r\n\r\n")
                writer.write(request())
                assert await answer(reader) == b"old"
            writer.write(request(method=b"HEAD"))
            await reader.readuntil(b"\r\n\r\n")
            await here.serve("new", echo("new"))
            here.share(old=0)
            writer.write(request(b"2"))
            assert await answer(reader) == b"new:2"

    run(scenario)


def test_chunked_replies_and_replies_without_a_length_come_whole() -> None:
    async def various(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            body = await reader.readexactly(_length(head))
            if body == b"chunked":
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for _ in range(3):
                    writer.write(b"3\r\nabc\r\n")
                    await asyncio.sleep(0.01)
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"z" * 100_000)
                await writer.drain()
                return

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", various)
            reader, writer = await here.client()
            writer.write(request(b"chunked"))
            assert (await reader.readuntil(b"0\r\n\r\n")).count(b"abc") == 3
            writer.write(request(b"endless"))
            assert (await reader.read()).count(b"z") == 100_000

    run(scenario)


def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        await asyncio.sleep(0.1)
        writer.write(reply(b"late"))

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", slow)
            reader, writer = await here.client()
            writer.write(request())
            writer.write_eof()
            assert await answer(reader) == b"late"
            assert await reader.read() == b""

    run(scenario)


def test_a_slow_reader_slows_the_revision_and_misses_nothing() -> None:
    size = 30_000_000
    sent = 0

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await _head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 10_000):
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent += 10_000
        await _head(reader)

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", large)
            reader, writer = await here.client()
            writer.write(request())
            await reader.readuntil(b"\r\n\r\n")
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < size, "nothing held the revision back"
            assert len(await reader.readexactly(size)) == size

    run(scenario)


def test_a_large_request_reaches_a_slow_revision_whole() -> None:
    size = 20_000_000

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _head(reader)
        await asyncio.sleep(0.2)
        writer.write(reply(b"%d" % len(await reader.readexactly(_length(head)))))

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", slow)
            reader, writer = await here.client()
            writer.write(request(b"y" * size))
            assert await answer(reader) == b"%d" % size

    run(scenario)


def test_shares_are_exact_for_connections_and_for_requests() -> None:
    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", echo("a"), 0.95)
            await here.serve("b", echo("b"), 0.05)
            seen: Counter[bytes] = Counter()
            for _ in range(100):
                reader, writer = await here.client()
                writer.write(request())
                seen[await answer(reader)] += 1
                writer.close()
            assert seen == {b"a:": 95, b"b:": 5}
            reader, writer = await here.client()
            for _ in range(100):
                writer.write(request())
                seen[await answer(reader)] += 1
            assert seen == {b"a:": 190, b"b:": 10}, "one keep-alive client is shared as well"

    run(scenario)


def test_without_a_ready_revision_the_answer_is_503_with_a_message() -> None:
    async def scenario() -> None:
        async with place() as here:
            for extra in (b"", b"x" * 500_000):
                reader, writer = await here.client()
                writer.write(request(extra))
                said = await reader.read()
                assert said.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"message": "service diabetes-dev has no release"}
            backend = await here.serve("a", echo("a"))
            reader, writer = await here.client()
            writer.write(request(b"1"))
            assert await answer(reader) == b"a:1"
            backend.ready = False
            here.front.settle()
            writer.write(request(b"2"))
            assert (await reader.read()).startswith(b"HTTP/1.1 503")

    run(scenario)


def test_a_revision_that_cannot_be_reached_leaves_its_request_to_another() -> None:
    async def scenario() -> None:
        async with place() as here:
            gone = await here.serve("gone", echo("gone"), 0.5)
            await here.serve("b", echo("b"), 0.5)
            here.servers["gone"].close()
            Path(gone.socket).unlink(missing_ok=True)
            for _ in range(10):
                reader, writer = await here.client()
                writer.write(request(b"1"))
                assert await answer(reader) == b"b:1"
                writer.close()

    run(scenario)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"])
def test_a_revision_that_ends_in_a_request_is_not_hidden(said: bytes) -> None:
    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(said)
        await writer.drain()

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", dying)
            reader, writer = await here.client()
            writer.write(request())
            got = await reader.read()
            assert got == said if said else got.startswith(b"HTTP/1.1 502 Bad Gateway")

    run(scenario)


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000])
def test_a_refusal_before_the_body_came_reaches_the_client(size: int) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge"

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(refusal)
        await writer.drain()

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", early)
            reader, writer = await here.client()
            writer.write(request(b"y" * size))
            assert await reader.read() == refusal

    run(scenario)


def test_a_revision_that_closes_an_idle_connection_does_not_close_the_clients() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _head(reader)
        writer.write(reply(await reader.readexactly(_length(head))))
        await writer.drain()

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", once)
            reader, writer = await here.client()
            for number in range(5):
                writer.write(request(b"%d" % number))
                assert await answer(reader) == b"%d" % number
                await asyncio.sleep(0.02)
            assert here.connections["a"] == 5

    run(scenario)


def test_what_says_close_is_closed() -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(reply(b"bye", b"connection: close\r\n"))
        await writer.drain()

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", closing)
            reader, writer = await here.client()
            writer.write(request())
            assert await answer(reader) == b"bye"
            assert await reader.read() == b""

    run(scenario)


def test_bad_http_is_left_to_the_revision() -> None:
    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", strict)
            reader, writer = await here.client()
            writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400")

    run(scenario)


def test_an_upgraded_connection_is_passed_on_untouched() -> None:
    async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        while data := await reader.read(1000):
            writer.write(data)

    async def scenario() -> None:
        async with place() as here:
            old = await here.serve("old", upgraded)
            reader, writer = await here.client()
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            await here.serve("new", echo("new"))
            here.share(old=0)
            for _ in range(3):
                writer.write(b"\x00\x01binary")
                assert await reader.readexactly(8) == b"\x00\x01binary"
            assert not await here.front.emptied(old, 0.05)
            writer.close()
            assert await here.front.emptied(old, 5)

    run(scenario)


def test_unused_ways_are_closed_between_requests_and_opened_again() -> None:
    async def scenario() -> None:
        async with place() as here:
            backend = await here.serve("a", echo("a"))
            reader, writer = await here.client()
            for number in range(3):
                writer.write(request(b"1"))
                assert await answer(reader) == b"a:1"
                assert here.connections["a"] == number + 1
                here.front.sweep()
                assert len(backend.clients) == 1, "it was used since the last sweep"
                here.front.sweep()
                assert not backend.clients

    run(scenario)


def test_closing_lets_requests_finish() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _head(reader):
            await asyncio.sleep(0.1)
            writer.write(reply(b"done"))

    async def scenario() -> None:
        async with place() as here:
            await here.serve("a", slow)
            busy, idle = await here.client(), await here.client()
            busy[1].write(request())
            await asyncio.sleep(0.03)
            closing = asyncio.create_task(here.front.close(5))
            assert await answer(busy[0]) == b"done"
            assert await busy[0].read() == b""
            assert await idle[0].read() == b""
            await closing
            with pytest.raises(ConnectionRefusedError):
                await here.client()

    run(scenario)
