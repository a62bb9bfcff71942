"""``stageway.yml`` becomes a spec, and every mistake is shown where it stands with a way out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stageway.config.loader import load_pipeline
from stageway.errors import ConfigError
from stageway.specs import PipelineSpec, ResourcesSpec

Load = Callable[[str], PipelineSpec]
Problems = Callable[[str], list[str]]

WHOLE = """\
model: diabetes

triggers:
  - queue: {address: here}
  - model-version

serve:
  entry-script: score.py
  dependencies: requirements.txt
  samples: samples/
  python: "3.11"
  environment-variables: {THREADS: "1", SINCE: 2024-01-01}

stages:
  dev:
    target: local
    resources: auto
  test:
    target: shed
    resources: {cpu: 2, memory: 512MiB}
    smoke-test: {p95: 100ms, errors: 0}
  prod:
    gates:
      - hours: {from-hour: 9, days: [mon], longest: 24h, part: 2%}
      - limits: {rmse: {from-hour: 1}}
      - hours
    rollout: {canary: [5%, 25%, 100%], bake: 10m}
"""

STAGES = "stages: {dev: {}}\n"


def gates(line: str) -> str:
    return f"model: m\nstages:\n  prod:\n    gates:\n      {line}\n"


@pytest.mark.usefixtures("third_party")
def test_a_whole_file_becomes_types(load: Load) -> None:
    spec = load(WHOLE)
    assert spec.name == "diabetes"
    assert [one.name for one in spec.triggers] == ["queue", "model-version"]
    assert spec.triggers[0].name == "queue"
    assert spec.triggers[0].options.address == "here"
    assert spec.serve.environment_variables == {"THREADS": "1", "SINCE": "2024-01-01"}
    assert spec.serve.python == "3.11"
    assert list(spec.stages) == ["dev", "test", "prod"]
    assert spec.stages["test"].resources == ResourcesSpec(cpu=2.0, memory=512.0)
    assert spec.stages["test"].smoke_test.p95 == pytest.approx(0.1)
    hours, limits, bare = spec.stages["prod"].gates
    assert (hours.name, hours.options.from_hour, hours.options.days) == ("hours", 9, ("mon",))
    assert (hours.options.longest, hours.options.part) == (86400.0, 0.02)
    assert limits.options.root["rmse"].from_hour == 1
    assert bare.options.from_hour == 0
    assert spec.stages["prod"].rollout.canary == (0.05, 0.25, 1.0)
    assert spec.stages["prod"].rollout.bake == 600.0


def test_the_built_in_gates_get_their_options(load: Load) -> None:
    spec = load(
        gates(
            "- metric: {rmse: {max: 60, not-worse-than: prod, tolerance: 2%}}\n"
            "      - contract\n      - latency: {p95: 100ms}\n      - approval"
        )
    )
    metric, contract, latency, approval = spec.stages["prod"].gates
    assert metric.options.root["rmse"].max == 60
    assert metric.options.root["rmse"].tolerance == pytest.approx(0.02)
    assert [one.name for one in (contract, latency, approval)] == ["contract", "latency", "approval"]


def test_without_triggers_every_new_version_starts_the_pipeline(load: Load) -> None:
    [trigger] = load("model: m\n" + STAGES).triggers
    assert trigger.name == "model-version"
    assert (trigger.options.tags, trigger.options.policy) == ({}, "latest")


def test_aliases_and_merge_keys_share_a_stage(load: Load) -> None:
    spec = load(
        "model: m\nstages:\n  dev: &usual\n    workers: 2\n    smoke-test: &limits {errors: 1}\n"
        "  test: *usual\n  prod:\n    <<: *usual\n    workers: 3\n    smoke-test: {<<: [*limits], requests: 5}\n"
    )
    assert spec.stages["test"] == spec.stages["dev"]
    assert spec.stages["prod"].workers == 3
    assert (spec.stages["prod"].smoke_test.errors, spec.stages["prod"].smoke_test.requests) == (1, 5)


def test_the_stored_definition_of_a_pipeline_reads_back(load: Load) -> None:
    spec = load(gates("- metric: {rmse: {max: 60}}"))
    again = PipelineSpec.model_validate_json(spec.model_dump_json())
    assert again.model_dump() == spec.model_dump()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: m\nstages:\n  dev: {gats: []}\n", "3:9: stages.dev.gats: unknown key; did you mean 'gates'?"),
        ("model: m\nstage: {}\n" + STAGES, "2:1: stage: unknown key; did you mean 'stages'?"),
        (
            "model: m\nx: 1\n" + STAGES,
            "2:1: x: unknown key; known: model, models, profile, serve, stages, triggers, workspace",
        ),
        (
            "model: m\nserve:\n  entry_script: score.py\n" + STAGES,
            "3:3: serve.entry_script: unknown key; did you mean 'entry-script'?",
        ),
        ("model: m\nmodel: n\n" + STAGES, "2:1: model: duplicate key; it is on line 1 already, remove one"),
        (
            "model: m\nstages:\n  dev: {}\n  prod: {}\n  dev: {}\n",
            "5:3: stages.dev: duplicate key; it is on line 3 already, remove one",
        ),
        ("model: m\n", "1:1: stages: missing; it must be given"),
        ("model: m\nstages: {}\n", "1:1: stages: at least one stage is needed"),
        ("stages: {dev: {}}\n", "1:1: model: write one of model: NAME or models: [NAME, …]"),
        ("model: m\nmodels: [a]\n" + STAGES, "1:1: model: write one of model: NAME or models: [NAME, …]"),
        ("model: ../x\n" + STAGES, "1:8: model: a model cannot be called '../x'; use letters, "),
        ('model: "a\\0b"\n' + STAGES, "1:8: model: a model cannot be called 'a\\x00b'; use letters, "),
        ("model: a@b\n" + STAGES, "1:8: model: a model cannot be called 'a@b'; use letters, "),
        ('model: "a\\n"\n' + STAGES, "1:8: model: a model cannot be called 'a\\n'; use letters, "),
        ("models: [a, /etc]\n" + STAGES, "1:13: models[1]: a model cannot be called '/etc'; use letters, "),
        ("models: a\n" + STAGES, "1:9: models: 'a' should be a list"),
        ("model: m\nstages: {Dev: {}}\n", "2:10: stages.Dev: a stage cannot be called 'Dev'; use a-z, 0-9 and '-'"),
        ("model: m\nstages: [dev]\n", "2:9: stages: a list should be a mapping of keys"),
        ("model: m\nstages:\n  dev:\n", "3:7: stages.dev: is empty; it should be a mapping of keys, or remove the key"),
        ("model: m\nstages:\n  dev:\n    port: yes\n", "4:11: stages.dev.port: 'yes' should be a whole number"),
        ("model: m\nstages:\n  dev:\n    port: '80'\n", "4:11: stages.dev.port: '80' should be a whole number"),
        (
            "model: m\nstages:\n  dev:\n    port: 70000\n",
            "4:11: stages.dev.port: '70000' should be less than or equal to 65535",
        ),
        ("model: m\nstages:\n  dev: {workers: 2.0}\n", "3:18: stages.dev.workers: '2.0' should be a whole number"),
        (
            "model: m\nstages:\n  dev: {resources: big}\n",
            "3:20: stages.dev.resources: 'big' should be 'auto' or a mapping of keys",
        ),
        (
            "model: m\nstages:\n  dev: {resources: {cpu: 0, memory: 1GiB}}\n",
            "3:26: stages.dev.resources.cpu: '0' should be greater than 0",
        ),
        (
            "model: m\nstages:\n  dev: {resources: {cpu: 1, memry: 1GiB}}\n",
            "3:29: stages.dev.resources.memry: unknown key; did you mean 'memory'?",
        ),
        (
            "model: m\nstages:\n  dev: {smoke-test: {p95: 0.1}}\n",
            "3:27: stages.dev.smoke-test.p95: 0.1 is not a duration; write 100ms, 10s, 5m, 24h or 7d",
        ),
        (
            "model: m\nserve: {python: 3.10}\n" + STAGES,
            '2:17: serve.python: 3.10 is not text as it stands; write it in quotes: "3.10"',
        ),
        (
            "model: m\nserve: {environment-variables: {DEBUG: no}}\n" + STAGES,
            '2:40: serve.environment-variables.DEBUG: no is not text as it stands; write it in quotes: "no"',
        ),
        (
            "model: m\nstages:\n  dev: {target: locl}\n",
            "3:17: stages.dev.target: no target is called 'locl'; did you mean 'local'? installed: local",
        ),
        ("model: m\nprofile: {budget: .inf}\n" + STAGES, "2:19: profile.budget: '.inf' is not a finite number"),
        ("model: !!python/name:os.system m\n" + STAGES, "1:8: model: the tag '!!python/name:os.system' is not allowed"),
        ("model: m\nprofile: {budget: 1e}\n" + STAGES, "2:19: profile.budget: '1e' is not a duration; write 100ms, "),
        ("model: m\nserve: {python: 0x_}\n" + STAGES, "2:17: serve.python: '0x_' is not a number; write it in quotes"),
        ("model: m\nserve: {python: " + "9" * 5000 + "}\n" + STAGES, "2:17: serve.python: '999"),
        ('model: "\\ud800"\n' + STAGES, "1:8: model: has half of a character pair; write the character itself"),
        ("model: m\n? [a]\n: 1\n" + STAGES, "2:3: a key must be text"),
        ("model: m\n<<: 1\n" + STAGES, "2:5: '<<' takes an alias of a mapping"),
    ],
)
def test_a_mistake_is_shown_where_it_stands(problems: Problems, text: str, said: str) -> None:
    first = problems(text)[0]
    assert first.startswith(f"stageway.yml:{said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (gates("- metrik: {rmse: {max: 1}}"), "5:9: stages.prod.gates[0].metrik: no gate is called 'metrik'; did you "),
        (gates("- nothing-like-it"), "5:9: stages.prod.gates[0]: no gate is called 'nothing-like-it'; installed: "),
        (gates("- hours: {from-hor: 1}"), "5:17: stages.prod.gates[0].hours.from-hor: unknown key; did you mean 'from"),
        (gates("- hours: {from-hour: 24}"), "5:28: stages.prod.gates[0].hours.from-hour: '24' should be less than or"),
        (gates("- hours: 9"), "5:16: stages.prod.gates[0].hours: '9' should be a mapping of keys"),
        (gates("- hours: {days: [sun]}"), "5:24: stages.prod.gates[0].hours.days[0]: 'sun' should be 'mon' or 'tue'"),
        (
            gates("- hours: {extra: {extra: {longst: 1s}}}"),
            "5:33: stages.prod.gates[0].hours.extra.extra.longst: unknown key; did you mean 'longest'?",
        ),
        (
            gates("- hours: {by-name: {a: {dys: []}}}"),
            "5:31: stages.prod.gates[0].hours.by-name.a.dys: unknown key; did you mean 'days'?",
        ),
        (
            gates("- limits: {rmse: {from-hur: 1}}"),
            "5:25: stages.prod.gates[0].limits.rmse.from-hur: unknown key; did you mean 'from-hour'?",
        ),
        (gates("- broken"), "5:9: stages.prod.gates[0]: gate 'broken' from their-plugins does not import"),
        (gates("- old: {}"), "5:9: stages.prod.gates[0].old: the gate 'old' has no Options; update what installed it"),
        (gates("- {hours: {}, limits: {}}"), "5:9: stages.prod.gates[0]: a mapping should be NAME, or one NAME: with"),
        (gates("- 3"), "5:9: stages.prod.gates[0]: '3' should be NAME, or one NAME: with its options"),
        ("model: m\nstages: {dev: {gates: hours}}\n", "2:23: stages.dev.gates: 'hours' should be a list of gates"),
        ("model: m\ntriggers: {queue: {}}\n" + STAGES, "2:11: triggers: a mapping should be a list of triggers"),
        ("model: m\ntriggers:\n- queue\n" + STAGES, "3:3: triggers[0].address: missing; it must be given"),
        ("model: m\ntriggers:\n- q: {}\n" + STAGES, "3:3: triggers[0].q: no trigger is called 'q'; installed: "),
    ],
)
@pytest.mark.usefixtures("third_party")
def test_a_mistake_in_a_plug_ins_options_is_shown_too(problems: Problems, text: str, said: str) -> None:
    assert problems(text)[0].startswith(f"stageway.yml:{said}")


@pytest.mark.usefixtures("third_party")
def test_all_problems_are_told_together_in_the_order_of_the_file(problems: Problems) -> None:
    said = problems(
        "model: ../m\nserve: {entry-script: away.py, lok: x}\n"
        "stages:\n  dev: {target: moon}\n  prod:\n    gates:\n    - hours: {from-hour: x}\n    - sun\n"
    )
    assert [line.split(": ")[1] for line in said] == [
        "model",
        "serve.lok",
        "stages.dev.target",
        "stages.prod.gates[0].hours.from-hour",
        "stages.prod.gates[1]",
    ]
    assert [int(line.split(":")[1]) for line in said] == [1, 2, 4, 7, 8]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [m\nstages: {}\n", ":2:7: is not YAML: "),
        ("model: m\n\tstages: {}\n", ":2:1: is not YAML: found character '\\t' that cannot start any token"),
        ("model: m\nstages: *nowhere\n", ":2:9: is not YAML: found undefined alias 'nowhere'"),
        ("model: m\n---\nmodel: n\n", ":2:1: is not YAML: but found another document"),
        ("model: m\x07\n", ":1:9: is not YAML: the character '\\x07' is not allowed"),
        ("", ": is empty"),
        ("# nothing\n", ": is empty"),
        ("just words\n", ":1:1: should be a mapping of keys such as model: and stages:"),
        ("- a\n- b\n", ":1:1: should be a mapping of keys such as model: and stages:"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_place(problems: Problems, text: str, said: str) -> None:
    assert problems(text)[0].startswith(f"stageway.yml{said}")


def test_a_file_that_grows_by_its_aliases_is_refused(problems: Problems) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    [said] = problems(bomb)
    assert "grows without end by its aliases; write the values out" in said


def test_a_file_that_grows_by_its_merge_keys_is_refused(problems: Problems) -> None:
    bomb = "a0: &a0 {x: 1}\n"
    bomb += "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9))
    [said] = problems(bomb)
    assert "grows without end by its aliases; write the values out" in said


@pytest.mark.parametrize("text", ["model: &m [*m]\n", "model: &m {<<: *m}\n", "model: &m {a: {<<: {b: *m}}}\n"])
def test_an_alias_that_contains_itself_is_refused(problems: Problems, text: str) -> None:
    assert "an alias contains itself; write the value out" in problems(text)[0]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "model: " + "[" * 41 + "]" * 41])
def test_a_file_too_deep_for_people_is_refused(problems: Problems, text: str) -> None:
    assert problems(text)[0].endswith("more than 40 levels deep")


def test_a_missing_file_is_told_with_the_way_to_start_one(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"^stageway\.yml: no such file; `stageway init NAME` starts a project$"):
        load_pipeline(project / "stageway.yml")


def test_a_folder_or_a_pipe_is_not_a_file(project: Path) -> None:
    (project / "folder.yml").mkdir()
    os.mkfifo(project / "pipe.yml")
    for name in ("folder.yml", "pipe.yml"):
        with pytest.raises(ConfigError, match=rf"^{name}: is not a file; give the path of a YAML file$"):
            load_pipeline(project / name)


def test_a_path_with_a_nul_is_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="is not a path of a file"):
        load_pipeline(project / "a\0b.yml")


def test_a_file_that_may_not_be_read_is_told(project: Path, unprivileged: Callable[[str], str]) -> None:
    (project / "stageway.yml").write_text("model: m\n" + STAGES)
    (project / "stageway.yml").chmod(0)
    said = unprivileged("load_pipeline(Path('stageway.yml'))")
    assert said.endswith("stageway.yml: may not be read; `chmod u+r stageway.yml` allows it")


def test_a_file_in_another_encoding_is_told_with_its_line(project: Path) -> None:
    (project / "stageway.yml").write_bytes("model: m\nserve: {lock: é}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^stageway\.yml:2: is not UTF-8 text; save it with that encoding$"):
        load_pipeline(project / "stageway.yml")


def test_a_byte_order_mark_is_no_mistake(project: Path) -> None:
    (project / "stageway.yml").write_bytes(b"\xef\xbb\xbfmodel: m\nstages: {dev: {}}\n")
    assert load_pipeline(project / "stageway.yml").model == "m"


def test_a_huge_file_is_not_read(project: Path) -> None:
    (project / "stageway.yml").write_text("# " + "x" * 1_000_000)
    with pytest.raises(ConfigError, match="is larger than 1000000 bytes; that is not a configuration file"):
        load_pipeline(project / "stageway.yml")


def test_a_file_elsewhere_is_called_by_its_whole_path(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "stageway.yml"
    other.parent.mkdir()
    other.write_text("model: m\n")
    with pytest.raises(ConfigError) as caught:
        load_pipeline(other)
    assert caught.value.message == f"{other}:1:1: stages: missing; it must be given"


def test_loading_imports_nothing_heavy(load: Load) -> None:
    load(gates("- metric: {rmse: {max: 60}}"))
    code = (
        "import sys\nfrom pathlib import Path\nfrom stageway.config.loader import load_pipeline\n"
        "load_pipeline(Path('stageway.yml'))\n"
        "heavy = {'mlflow', 'sqlalchemy', 'rich', 'typer', 'docker', 'git', 'numpy', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
