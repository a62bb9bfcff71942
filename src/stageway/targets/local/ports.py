"""Stable ports on 127.0.0.1: bound plainly, so that nobody shares one with us unseen, and what to say of one in use."""

from __future__ import annotations

import errno
import hashlib
import socket
from contextlib import suppress

from stageway.errors import TargetError
from stageway.targets.local.front import HOST

PORTS = range(20_000, 32_000)
"""Where free ports are looked for: below those that systems give to outgoing connections."""


def bound(port: int) -> socket.socket:
    """Return a listening socket. Without SO_REUSEPORT, so that nobody shares the port with us unseen."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(1024)
    except BaseException:
        listening.close()
        raise
    return listening


def free(seed: str) -> socket.socket:
    """Return a listening socket on a free port, for the same *seed* mostly the same one."""
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
    for step in range(len(PORTS)):
        with suppress(OSError):
            return bound(PORTS[(start + step) % len(PORTS)])
    raise TargetError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free on {HOST}")


def sentence(port: int, stage: str, error: OSError) -> str:
    """Say why *port* cannot be had, the key that asks for it, and the way out."""
    if error.errno == errno.EADDRINUSE:
        way = f"give stages.{stage}.port another one in stageway.yml, or leave it out for a free one"
        return f"port {port} is in use by another program; {way}"
    way = f"give stages.{stage}.port one from 1024 to 65535 in stageway.yml, or leave it out for a free one"
    return f"port {port} cannot be used: {error.strerror}; {way}"
