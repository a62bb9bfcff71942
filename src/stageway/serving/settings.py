"""What one service process was told; made by ``main`` from its arguments, handed to every worker."""

from __future__ import annotations

from dataclasses import dataclass, field

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """One release, served; exactly one of ``uds`` and ``port``, and of ``entry_script`` and ``framework``, is set."""

    uds: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    workers: int = 1
    control: str = ""
    entry_script: str = ""
    framework: str = ""
    contract: str = ""
    max_body: int = 100 * MEGABYTE
    scoring_timeout: float = 3600.0
    stop_timeout: int = 30
    service_name: str = "ML service"
    service_version: str = "1.0"
    identity: "list[tuple[str, str]]" = field(default_factory=list)
    """Headers of every reply that say what answers."""
