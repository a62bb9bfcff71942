"""What a deployment config says to the scoring server, read by the server's own door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stageway.serving import arguments
from stageway.specs import CollectSpec, RequestsSpec
from stageway.targets.base import DeploymentConfig


def understood(config: DeploymentConfig) -> Any:
    auth = config.auth_file
    return arguments.settings(["--entry-script", "x.py", *config.arguments(auth=auth, collected=Path("/kept"))])


def test_everything_that_is_written_reaches_the_server(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("{}")
    settings = understood(
        DeploymentConfig(
            requests=RequestsSpec(timeout=2.5, concurrency=3, queue_wait=0.5, body=0.5),
            auth_file=keys,
            cors=("https://a.example", "https://b.example"),
            collect=CollectSpec(share=0.1, without=("name", "age"), keep=2.0),
            telemetry=True,
        )
    )
    assert (settings.timeout, settings.concurrency, settings.queue_wait, settings.max_body) == (2.5, 3, 0.5, 2**19)
    assert (settings.auth, settings.cors) == (str(keys), ["https://a.example", "https://b.example"])
    collected = (settings.collect, settings.collect_share, settings.collect_without, settings.collect_keep)
    assert collected == ("/kept", 0.1, ["name", "age"], 2 * 2**20)
    assert settings.telemetry


def test_what_is_not_written_is_off_or_as_the_file_promises() -> None:
    settings = understood(DeploymentConfig())
    assert (settings.timeout, settings.concurrency, settings.queue_wait) == (60.0, 1, 0.0)
    assert settings.max_body == 100 * 2**20
    assert (settings.auth, settings.cors, settings.collect, settings.telemetry) == ("", [], "", False)
