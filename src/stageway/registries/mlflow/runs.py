"""Which run, and which part of it, is meant by a registration that takes the model from MLflow's tracking."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from stageway.errors import RegistryError
from stageway.registries.base import NewVersion
from stageway.registries.content import check_path
from stageway.registries.mlflow.artifacts import Artifacts, logged_model, logged_models
from stageway.registries.mlflow.connection import Connection

MODEL = "model"


@dataclass(frozen=True)
class Part:
    """A model of a run: *root* is its path among the run's artifacts, or, with *model_id*, its own address."""

    root: str
    model_id: str | None = None


def run_of(connection: Connection, want: NewVersion) -> Any:
    """Return the run that *want* names, or the best finished one of its experiment (of equals the newest)."""
    with connection.asking() as client:
        if want.run_id is not None:
            return client.get_run(want.run_id)
        name, best_by = want.experiment or "", want.best_by or ""
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            known = ", ".join(sorted(one.name for one in client.search_experiments()))
            raise RegistryError(f"experiment {name!r}: {connection.where} has none of this name; it has: {known}")
        metric = best_by[1:] if best_by[:1] in "+-" else best_by
        runs = client.search_runs(
            [experiment.experiment_id],
            filter_string="attributes.status = 'FINISHED'",
            order_by=[f"metrics.`{metric}` {'ASC' if best_by.startswith('-') else 'DESC'}"],
            max_results=1,
        )
        if not runs or not math.isfinite(runs[0].data.metrics.get(metric, math.nan)):
            raise RegistryError(f"experiment {name!r}: no finished run has a number for metric {metric!r}")
        return runs[0]


def part_of(artifacts: Artifacts, run: Any, artifact: str | None) -> Part:
    """Return the part of *run* that *artifact* names; without a name its one logged model, or ``model``."""
    where = f"run {run.info.run_id}"
    with artifacts.connection.asking() as client:
        models = logged_models(client, run)
        names = [one for one in artifacts.names(run.info.artifact_uri) if one != "stageway"]
        choice = ", ".join(sorted({*names, *(one.name for one in models)})) or "nothing"
        if artifact is None:
            if len(models) == 1:
                return Part(f"models:/{models[0].model_id}", models[0].model_id)
            if MODEL in names and not models:
                return Part(MODEL)
            raise RegistryError(f"{where}: which artifact is the model? name one with artifact; it has: {choice}")
        path = check_path(artifact.strip("/"), f"{where}: artifact")
        if path in artifacts.names(run.info.artifact_uri, path.rpartition("/")[0]):
            return Part(path)
        model = logged_model(client, run, path)
        if model is None:
            raise RegistryError(f"{where}: has no artifact {artifact!r}; it has: {choice}")
        return Part(f"models:/{model.model_id}", model.model_id)
