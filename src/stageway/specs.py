"""What users write in ``stageway.yml``, as types. ``config`` reads the file into these; no dict travels below it.

Keys are written with hyphens. Units: durations like ``100ms``, ``10s``, ``5m``, ``24h``, ``7d``; memory like ``512MiB``
or ``1GiB``; shares like ``2%``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from stageway.errors import ConfigError
from stageway.release import MODEL_NAME, check_model_name

_DURATION = re.compile(r"^(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEMORY = re.compile(r"^(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>KiB|MiB|GiB|KB|MB|GB|K|M|G|Ki|Mi|Gi)$")
_MIB = {"K": 2**-10, "Ki": 2**-10, "KiB": 2**-10, "KB": 1e3 / 2**20, "M": 1.0, "Mi": 1.0, "MiB": 1.0, "MB": 1e6 / 2**20}
_MIB |= {"G": 1024.0, "Gi": 1024.0, "GiB": 1024.0, "GB": 1e9 / 2**20}
_SHARE = re.compile(r"^(?P<number>\d+(?:\.\d+)?)\s*%$")


def seconds(value: Any) -> float:
    """Read a duration such as ``100ms`` into seconds. A bare number has no unit and is refused."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write 100ms, 10s, 5m, 24h or 7d")
    return float(match["number"]) * _SECONDS[match["unit"]]


def mebibytes(value: Any) -> float:
    """Read an amount of memory such as ``512MiB`` into MiB."""
    match = _MEMORY.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not an amount of memory; write 512MiB or 1GiB")
    return float(match["number"]) * _MIB[match["unit"]]


def share(value: Any) -> float:
    """Read ``2%`` (or the bare fraction ``0.02``) into a fraction."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    match = _SHARE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a share; write 2% or 0.02")
    return float(match["number"]) / 100


def _read_once(parse: Any) -> Any:
    """Let a value that was parsed before (a pipeline's stored definition) pass through; a file must name its unit."""

    def read(value: Any, info: ValidationInfo) -> Any:
        written = bool(info.context and info.context.get("written"))
        return value if type(value) is float and not written else parse(value)

    return read


Duration = Annotated[
    float, BeforeValidator(_read_once(seconds)), WithJsonSchema({"type": "string", "pattern": _DURATION.pattern})
]
Memory = Annotated[
    float, BeforeValidator(_read_once(mebibytes)), WithJsonSchema({"type": "string", "pattern": _MEMORY.pattern})
]
Share = Annotated[
    float,
    BeforeValidator(share),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": _SHARE.pattern}]}
    ),
]


def _word(value: Any) -> Any:
    """Return ``on`` and ``off`` as they were written: YAML reads both as truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Acceleration = Annotated[
    Literal["auto", "off"], BeforeValidator(_word), WithJsonSchema({"enum": ["auto", "off", False]})
]
Batching = Annotated[
    Literal["auto", "on", "off"], BeforeValidator(_word), WithJsonSchema({"enum": ["auto", "on", "off", True, False]})
]


class Spec(BaseModel):
    """A part of the file: frozen, hyphenated keys, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, alias_generator=lambda name: name.replace("_", "-")
    )


class ServeSpec(Spec):
    """How the model is served (v1: inference configuration)."""

    entry_script: str | None = Field(default=None, description="Python file with init() and run(); absent: no-code")
    source_directory: str | None = Field(default=None, description="folder shipped whole; entry-script is inside")
    dependencies: str | None = Field(default=None, description="requirements file of what serving needs")
    lock: str = Field(default="stageway.lock", description="resolved dependencies, committed")
    samples: str | None = Field(default=None, description="folder of requests and, beside them, expected replies")
    python: str | None = Field(default=None, description="Python of the service, such as '3.11'; default: this one")
    environment_variables: dict[str, str] = Field(default={}, description="set in the service; never secrets")
    accelerate: Acceleration = Field(
        default="auto", description="auto: a verified ONNX form answers where there is no entry script and it is faster"
    )
    batching: Batching = Field(
        default="auto", description="requests that wait together are scored together; on: the script's rows may be too"
    )
    batch_rows: int = Field(default=256, ge=1, le=65536, description="most rows of one joined call")


class ResourcesSpec(Spec):
    """What a stage gives to one replica."""

    cpu: float = Field(gt=0, description="cores")
    memory: Memory = Field(description="such as 512MiB or 1GiB")


class SmokeTestSpec(Spec):
    """Limits of the smoke test; absent limits are not checked."""

    p95: Duration | None = Field(default=None, description="19 of 20 replies come within this, such as 100ms")
    errors: int = Field(default=0, ge=0, description="failed requests that are allowed")
    requests: int = Field(default=20, ge=1, le=10_000, description="requests that are timed")
    tolerance: Share = Field(default=1e-6, description="relative difference of numbers in replies")


class GateSpec(Spec):
    """One line of a stage's ``gates``: ``{name: options}``. *options* are what the gate's own Options made of it."""

    name: str
    options: Any = None


class TriggerSpec(Spec):
    """One line of ``triggers``: ``{name: options}``."""

    name: str
    options: Any = None


class RolloutSpec(Spec):
    """How traffic moves to a new release; the default moves it at once when the new one is ready."""

    canary: tuple[Share, ...] = Field(default=(), description="shares of traffic, one step after another")
    bake: Duration = Field(default=0.0, description="how long each share is watched, such as 10m")


class RequestsSpec(Spec):
    """Limits of the requests to one replica."""

    timeout: Duration = Field(default=60.0, gt=0, description="from a request's arrival to its reply; beyond it: 504")
    concurrency: int = Field(default=1, ge=1, le=64, description="calls of run() at once in one worker")
    queue_wait: Duration | None = Field(
        default=None, gt=0, description="longest wait for run() to begin; beyond it: 503; default: the timeout"
    )
    body: Memory = Field(default=100.0, gt=0, description="largest body; beyond it: 413")


class CollectSpec(Spec):
    """Which inputs and outputs are kept as Parquet."""

    share: Share = Field(default=1.0, description="share of the requests that is kept, such as 10%")
    without: tuple[str, ...] = Field(default=(), description="names of fields that are left out")
    keep: Memory = Field(default=1024.0, gt=0, description="room on disk; the oldest files make way")


class SecretSpec(Spec):
    """Where a secret is; never the secret itself."""

    env: str | None = Field(default=None, description="name of an environment variable")
    file: str | None = Field(default=None, description="path of a file that holds it and nothing else")

    @model_validator(mode="after")
    def _one(self) -> SecretSpec:
        if (self.env is None) == (self.file is None):
            raise ValueError("write one of env: NAME and file: PATH")
        return self


class AuthSpec(Spec):
    """Keys and tokens that requests must bring."""

    file: str = Field(description="what `stageway keys make` wrote: digests of keys, public keys of tokens")
    test_key: SecretSpec = Field(description="where the smoke test finds a key: {env: NAME} or {file: PATH}")


class StageSpec(Spec):
    """A named step on the way: a target, a deployment config, gates."""

    target: str = Field(default="local", description="kind of place")
    port: int | None = Field(default=None, ge=1, le=65535, description="stable port; default: a free one, kept")
    resources: Literal["auto"] | ResourcesSpec = Field(default="auto", description="auto: from the profile")
    workers: int = Field(default=1, ge=1, le=64, description="server processes of one replica")
    smoke_test: SmokeTestSpec = Field(default=SmokeTestSpec(), description="limits of the smoke test")
    gates: tuple[GateSpec, ...] = Field(default=(), description="what must say yes before a release enters")
    rollout: RolloutSpec = Field(default=RolloutSpec(), description="how traffic moves to a new release")
    ready_timeout: Duration = Field(default=60.0, description="how long a release may take until it answers")
    drain_timeout: Duration = Field(default=30.0, description="how long a replaced release may finish its requests")
    requests: RequestsSpec = Field(default=RequestsSpec(), description="limits of the requests to one replica")
    auth: AuthSpec | None = Field(default=None, description="keys and tokens that requests must bring")
    cors: tuple[str, ...] = Field(default=(), description="origins that browsers may call from; '*': any")
    collect: CollectSpec | None = Field(default=None, description="keep inputs and outputs as Parquet")
    telemetry: bool = Field(default=False, description="export metrics by OTLP to OTEL_EXPORTER_OTLP_ENDPOINT")


class WorkspaceSpec(Spec):
    """Where registry and state are; the environment overrides each (MLFLOW_TRACKING_URI, STAGEWAY_DATABASE_URL)."""

    name: str | None = Field(default=None, description="identity in a shared database; required with one")
    registry: str | None = Field(default=None, description="MLflow tracking URI; default: SQLite in .stageway/")
    database: str | None = Field(default=None, description="SQLAlchemy URL of the state; default: SQLite in .stageway/")


class ProfileSpec(Spec):
    """How long a version may be measured before it is packaged."""

    budget: Duration = Field(default=60.0, description="such as 10s; default: 60s")


def _model_name(name: str) -> str:
    try:
        return check_model_name(name)
    except ConfigError as error:
        raise ValueError(error.message.removeprefix("model: ")) from error


def _stage_name(name: str) -> str:
    if not _STAGE.fullmatch(name):
        raise ValueError(f"a stage cannot be called {name!r}; use a-z, 0-9 and '-' (at most 20, a letter first)")
    return name


_STAGE = re.compile(r"^[a-z][a-z0-9-]{0,19}$")
ModelName = Annotated[
    str, AfterValidator(_model_name), WithJsonSchema({"type": "string", "pattern": MODEL_NAME.pattern})
]
StageName = Annotated[str, AfterValidator(_stage_name), WithJsonSchema({"type": "string", "pattern": _STAGE.pattern})]


class PipelineSpec(Spec):
    """``stageway.yml``: triggers, how to serve, stages."""

    model: ModelName | None = Field(default=None, description="registered model that this pipeline takes to its stages")
    models: tuple[ModelName, ...] = Field(default=(), description="several models of one service, instead of model")
    workspace: WorkspaceSpec = Field(default=WorkspaceSpec(), description="where registry and state are")
    triggers: tuple[TriggerSpec, ...] = Field(
        default=(TriggerSpec(name="model-version"),), description="what starts the pipeline; default: every new version"
    )
    serve: ServeSpec = Field(default=ServeSpec(), description="how the model is served")
    profile: ProfileSpec = Field(default=ProfileSpec(), description="how long a version may be measured")
    stages: dict[StageName, StageSpec] = Field(description="the way to production, in this order")

    @model_validator(mode="after")
    def _names(self) -> PipelineSpec:
        if (self.model is None) == (not self.models):
            raise ValueError("model: write one of model: NAME or models: [NAME, …]")
        if not self.stages:
            raise ValueError("stages: at least one stage is needed")
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        return (self.model,) if self.model is not None else self.models

    @property
    def name(self) -> str:
        """The pipeline's name in ledger and runs: the models it serves."""
        return "+".join(self.model_names)

    def before(self, stage: str) -> str | None:
        """Return the stage before *stage* on the way, or ``None`` for the first."""
        names = list(self.stages)
        at = names.index(stage)
        return names[at - 1] if at else None

    def after(self, stage: str) -> str | None:
        names = list(self.stages)
        at = names.index(stage)
        return names[at + 1] if at + 1 < len(names) else None
