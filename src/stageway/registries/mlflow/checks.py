"""What may be registered: names, tags and numbers that MLflow can hold and that no reader has to fear."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from stageway.errors import ConfigError
from stageway.registries.base import FRAMEWORKS, NewVersion
from stageway.registries.content import has_control
from stageway.registries.mlflow.record import is_own
from stageway.release import check_model_name

_KEY = re.compile(r"\w[\w.\- :/]{0,199}")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,255}")
_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST = 5000


def check(want: NewVersion) -> None:
    """Raise ``ConfigError`` for what MLflow would refuse half way, or what no registry should hold."""
    check_model_name(want.name)
    _check_source(want)
    if want.framework is not None and want.framework not in FRAMEWORKS:
        raise ConfigError(f"framework {want.framework!r}: is not known; use one of {', '.join(FRAMEWORKS)}")
    if want.framework_version is not None and want.framework is None:
        raise ConfigError(f"framework-version {want.framework_version!r}: name the framework too")
    for name, number in want.metrics.items():
        check_key(name, "metric")
        if not math.isfinite(number):
            raise ConfigError(f"metric {name}: {number} is not a finite number")
    check_tags(want.tags)
    for key, value in want.properties.items():
        _check_value(value, f"property {check_key(key, 'property')}")
    if any(has_control(line) for line in want.description.splitlines()) or len(want.description) > _LONGEST:
        raise ConfigError(f"description: has control characters, or more than {_LONGEST} characters")


def _check_source(want: NewVersion) -> None:
    if sum(one is not None for one in (want.path, want.run_id, want.experiment)) != 1:
        raise ConfigError(f"model {want.name!r}: name one source: a path, a run, or an experiment with best-by")
    if (want.experiment is None) != (want.best_by is None):
        raise ConfigError("experiment and best-by belong together, such as --experiment ridge --best-by=-rmse")
    if want.best_by is not None:
        check_key(want.best_by[1:] if want.best_by[:1] in "+-" else want.best_by, "best-by")
    if want.artifact is not None and want.path is not None:
        raise ConfigError(f"artifact {want.artifact!r}: names a part of a run; a path has none")
    if want.run_id is not None and not _RUN.fullmatch(want.run_id):
        raise ConfigError(f"run {want.run_id!r}: is not the id of an MLflow run")


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise ``ConfigError`` for a tag that cannot be kept, or that the registry writes itself."""
    for key, value in tags.items():
        check_key(key, "tag")
        if is_own(key) or key.startswith("mlflow."):
            raise ConfigError(f"tag {key!r}: is written by the registry itself; choose another name")
        _check_value(value, f"tag {key}")


def check_key(key: str, kind: str) -> str:
    """Return *key*, or raise ``ConfigError`` when MLflow could not hold a *kind* of this name."""
    if not _KEY.fullmatch(key) or has_control(key) or ".." in key or "//" in key or key.endswith("/"):
        raise ConfigError(
            f"{kind} {key!r}: use letters, digits, '_', '.', '-', ':', '/' and spaces (at most 200, a letter first)"
        )
    return key


def check_alias(alias: str) -> str:
    """Return *alias*, or raise ``ConfigError`` when MLflow would take it for something else."""
    if not _ALIAS.fullmatch(alias) or re.fullmatch(r"latest|[vV]\d+", alias):
        raise ConfigError(f"alias {alias!r}: use letters, digits, '_' and '-', and neither 'latest' nor 'v1'")
    return alias


def quoted(value: str) -> str:
    """Return *value* as part of a search. Raises ``ConfigError`` when MLflow's searches cannot say it."""
    if "'" in value or has_control(value):
        raise ConfigError(f"tag value {value!r}: cannot be searched for; leave out quotes and control characters")
    return f"'{value}'"


def _check_value(value: str, what: str) -> None:
    if has_control(value) or len(value) > _LONGEST:
        raise ConfigError(f"{what}: has control characters, or more than {_LONGEST} characters")
