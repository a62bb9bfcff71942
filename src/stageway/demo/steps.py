"""Say what came of each task of a run, from the dossier that the task left."""

from __future__ import annotations

from stageway.demo.display import Display
from stageway.dossier import Dossier
from stageway.evidence import SmokeResult
from stageway.pipelines.runner import RunEvent
from stageway.store import Store


class Steps:
    """Shows the events of a run as phases; made for ``Runner.work(on_event=…)``."""

    def __init__(self, show: Display, store: Store) -> None:
        self.show, self.store = show, store
        self._notes: list[str] = []

    def __call__(self, event: RunEvent) -> None:
        if event.kind == "task":
            self._notes = []
            self.show.begin(f"{event.task} {event.stage}".rstrip())
        elif event.kind in ("note", "blocked"):
            self._notes.append(event.text)
            self.show.note(event.text)
        elif event.kind == "done":
            self.show.end(said(event.task, event.stage, self.store.runs.dossier(event.run.number)))
            for note in self._judged(event):
                self.show.detail(note)
        elif event.kind != "ended":
            self.show.end(event.text, good=False)

    def _judged(self, event: RunEvent) -> list[str]:
        """Return what the gates said; ``promote`` notes it as ``STAGE: GATE: …``."""
        if event.task != "promote":
            return []
        gates = self.store.runs.spec(event.run.number).stages[event.stage].gates
        starts = tuple(f"{event.stage}: {gate.name}: " for gate in gates)
        return [note.removeprefix(f"{event.stage}: ") for note in self._notes if note.startswith(starts)]


def said(task: str, stage: str, dossier: Dossier) -> str:
    """Return what *task* found or did, in one line."""
    if task == "register" and dossier.model is not None:
        commit = f", commit {dossier.model.git_commit[:7]}" if dossier.model.git_commit else ""
        return f"the facts of {dossier.model.label}{commit}"
    if task == "profile" and dossier.profile is not None:
        found = dossier.profile
        return (
            f"p50 {found.service_ms_p50:.1f} ms, p95 {found.service_ms_p95:.1f} ms, "
            f"{found.throughput_rps:.0f} requests/s, {found.memory_peak_mib:.0f} MiB; "
            f"take cpu {found.recommended_cpu:g}, memory {found.recommended_memory_mib} MiB"
        )
    if task == "package" and dossier.release is not None:
        return f"release {dossier.release.id}"
    if task in ("deploy", "promote"):
        return f"answers at {dossier.deployment(stage).endpoint}"
    if task == "smoke-test":
        for evidence in dossier.evidence:
            if evidence.kind == "smoke" and evidence.stage == stage:
                result = SmokeResult.model_validate(evidence.facts)
                return f"{len(result.checks)} checks passed" + (
                    f", p95 {result.latency_ms_p95:.1f} ms" if result.latency_ms_p95 is not None else ""
                )
    return "done"
