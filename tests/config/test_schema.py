"""The JSON Schema says what the loader says, as far as a schema can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stageway import plugins
from stageway.config.schema import check, json_schema
from stageway.errors import ConfigError

EXAMPLE = """\
model: diabetes

triggers:
  - model-version: {tags: {candidate: "yes"}, policy: every}

serve:
  entry-script: score.py
  dependencies: requirements.txt
  samples: samples/

stages:
  dev:
    target: local
    resources: auto
  test:
    target: local
    smoke-test: {p95: 100ms, errors: 0}
  prod:
    target: local
    resources: {cpu: 0.5, memory: 512MiB}
    gates:
      - metric: {rmse: {max: 60, not-worse-than: prod, tolerance: 2%}}
      - contract
      - latency: {p95: 100ms}
      - approval: {from: [release-engineers], count: 2, expires: 24h}
      - approval
    rollout: {canary: [5%, 0.25, 100%], bake: 10m}
"""

WRONG = [
    ("model: diabetes", "modle: diabetes"),
    ("model: diabetes", ""),
    ("model: diabetes", "model: diabetes\nmodels: [a]"),
    ("model: diabetes", "models: []"),
    ("model: diabetes", "model: ../diabetes"),
    ("model: diabetes", "model: a@b"),
    ("entry-script:", "entry_script:"),
    ("samples: samples/", "samples: [samples/]"),
    ("target: local\n    resources: auto", "targt: local"),
    ("target: local\n    resources: auto", "target: lokal"),
    ("resources: auto", "resources: automatic"),
    ("memory: 512MiB", "memory: 512"),
    ("memory: 512MiB", "memory: 512 apples"),
    (", memory: 512MiB", ""),
    ("cpu: 0.5", "cpu: 0"),
    ("p95: 100ms, errors", "p95: 0.1, errors"),
    ("errors: 0", "errors: -1"),
    ("  dev:", "  Dev:"),
    ("- metric:", "- metrik:"),
    ("- contract\n", "- kontract\n"),
    ("- latency: {p95: 100ms}", "- latency"),
    ("max: 60", "maxx: 60"),
    ("tolerance: 2%", "tolerance: 2 percent"),
    ("count: 2", "count: two"),
    ("expires: 24h}", "expires: 24h}\n        contract: {}"),
    ("policy: every", "policy: sometimes"),
    ("canary: [5%", "canary: [five"),
    ("rollout:", "roll-out:"),
]


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for one in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from parts(one)


def accepts(text: str) -> bool:
    return jsonschema.Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text))


def test_it_is_a_schema_of_its_dialect() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_example_of_the_design_is_accepted_by_schema_and_loader(project: Path) -> None:
    (project / "stageway.yml").write_text(EXAMPLE)
    assert list(check(project / "stageway.yml").stages) == ["dev", "test", "prod"]
    assert accepts(EXAMPLE)


@pytest.mark.parametrize(("right", "wrong"), WRONG)
def test_a_mistake_is_refused_by_schema_and_loader(project: Path, right: str, wrong: str) -> None:
    text = EXAMPLE.replace(right, wrong, 1)
    assert text != EXAMPLE
    assert not accepts(text)
    (project / "stageway.yml").write_text(text)
    with pytest.raises(ConfigError):
        check(project / "stageway.yml")


@pytest.mark.usefixtures("third_party")
def test_plug_ins_of_others_are_known_where_they_are_installed() -> None:
    usable = {"gate": ("hours", "limits"), "trigger": ("queue",)}
    for kind, names in usable.items():
        for name in set(plugins.found(kind)) - set(names):
            plugins.found(kind).pop(name)
    text = (
        "model: m\ntriggers: [queue: {address: here}]\nstages: {dev: {target: shed, gates: [hours, limits: {a: {}}]}}\n"
    )
    assert accepts(text)
    assert not accepts(text.replace("address", "adress"))
    assert not accepts(text.replace("hours", "metric: {rmse: {max: 1}}"))


@pytest.mark.usefixtures("third_party")
def test_the_copy_for_everybody_knows_only_what_is_built_in() -> None:
    text = str(json_schema(only="stageway"))
    assert "metric" in text
    assert "hours" not in text
    assert "shed" not in text


def test_every_key_is_described() -> None:
    for part in parts(json_schema()):
        for name, one in part.get("properties", {}).items():
            assert "description" in one or "$ref" in str(one), name


def test_patterns_are_those_that_editors_understand() -> None:
    patterns = [part["pattern"] for part in parts(json_schema()) if isinstance(part.get("pattern"), str)]
    assert patterns
    assert not [one for one in patterns if re.search(r"\(\?P|\\Z|\\A", one)]
