"""What one service process was told; made by ``main`` from its arguments, handed to every worker."""

from __future__ import annotations

from dataclasses import dataclass, field

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """One release, served; exactly one of ``uds`` and ``port``, and of ``entry_script`` and ``framework``, is set.

    Times are in seconds, sizes in bytes; 0 and "" mean that a limit or a feature is off.
    """

    uds: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    workers: int = 1
    control: str = ""
    entry_script: str = ""
    framework: str = ""
    contract: str = ""
    accelerated: str = ""
    """Folder with a verified ONNX form of the model, which answers in its place."""
    batching: str = "auto"
    """``auto``: join requests where the model itself says that rows are independent; ``on``: the script's author says
    so; ``off``."""
    batch_rows: int = 256
    """Most rows that are scored in one call because requests were joined."""
    concurrency: int = 1
    """Calls of ``run`` at the same time in one worker (v1: maxConcurrentRequestsPerContainer)."""
    queue_wait: float = 0.0
    """Longest wait for ``run`` to begin, then 503 (v1: maxQueueWaitMs)."""
    timeout: float = 0.0
    """From the request's arrival to its reply, then 504 (v1: scoringTimeoutMs of the deployment config)."""
    scoring_timeout: float = 3600.0
    """What ``run`` may take, then 500 (v1: the container's SCORING_TIMEOUT_MS)."""
    max_body: int = 100 * MEGABYTE
    body_timeout: float = 60.0
    """How long a client may take to send its body, then 408."""
    idle_timeout: float = 300.0
    """How long a connection may take to send its next request's headers; then it is closed."""
    worker_timeout: float = 300.0
    """How long a worker's event loop may stand still; then it is killed and another started (v1: WORKER_TIMEOUT)."""
    stop_timeout: int = 30
    lifeline: int = -1
    """Descriptor of a pipe whose other end is with somebody whom the service is not to outlive; -1 is nobody."""
    auth: str = ""
    """JSON file with the digests of keys and the public key of tokens, read again when it changes."""
    tls_certificate: str = ""
    tls_key: str = ""
    cors: "list[str]" = field(default_factory=list)
    """Origins that browsers may call from; ``*`` is any (v1: AML_CORS_ORIGINS)."""
    prefix: str = ""
    """Path that all routes are below (v1: SERVICE_PATH_PREFIX)."""
    docs: bool = False
    """Serve ``/docs``, a page to try a request."""
    log_format: str = "text"
    access_log: bool = False
    """Log every request: method, path, status, milliseconds, request id."""
    telemetry: bool = False
    """Export metrics by OTLP (v1: appInsightsEnabled)."""
    collect: str = ""
    """Folder for collected inputs and outputs (v1: dataCollection.storageEnabled)."""
    collect_share: float = 1.0
    collect_without: "list[str]" = field(default_factory=list)
    collect_keep: int = 1024 * MEGABYTE
    service_name: str = "ML service"
    service_version: str = "1.0"
    model: str = ""
    """NAME:VERSION of the model that is served."""
    identity: "list[tuple[str, str]]" = field(default_factory=list)
    """Headers of every reply that say what answers."""
