"""A run's folder as plain data. Whatever is missing or damaged is named, and the rest is still read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.inspection import stem
from polydistill.evaluation.rows import by_task, read_rows

MARKERS = ("run.json", "recipe.yaml", "metrics.jsonl", "summary.json")  # any of these makes a folder a run
EMBEDDED = {"names", "task", "value", "position", "marked", "marked_as", "copies", "every", "epsilon", "perplexity"} | {
    "components", "first_convolution", "first_shared",
    *(f"{layer}_{key}" for layer in ("first", "hidden") for key in ("points", "note", "width", "within", "same")),
}  # fmt: skip


@dataclass
class RunData:
    """What was found in a run's folder.

    Attributes:
        info: ``run.json``; ``{}`` if missing.
        recipe: The text of ``recipe.yaml``, or empty.
        train, evals: Lines of ``metrics.jsonl``, in their order.
        summary: ``summary.json``; ``{}`` if missing.
        student_scores, teacher_scores: Per task the final evaluation's returns, float64 ``[episodes]``.
        seeds: Seeds in ``scores.csv``.
        inspections: Per task the arrays of :func:`polydistill.evaluation.inspection.inspect_task`.
        videos: Per task its recording.
        embedding: Arrays of :func:`polydistill.evaluation.embedding.embed`; ``{}`` if missing.
        missing: One clause for each thing that is not there.
    """

    path: Path
    info: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    train: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    student_scores: dict[str, np.ndarray] = field(default_factory=dict)
    teacher_scores: dict[str, np.ndarray] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    inspections: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    videos: dict[str, Path] = field(default_factory=dict)
    embedding: dict[str, np.ndarray] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the run's order."""
        named = [t["name"] for t in self.info.get("tasks") or [] if isinstance(t, dict) and "name" in t]
        found = [n for line in (self.summary, *self.evals[-1:], *self.train[-1:]) for n in line.get("tasks") or {}]
        return list(dict.fromkeys([*named, *found]))

    def task_info(self, name: str) -> dict[str, Any]:
        """The task's entry in ``run.json``; ``{}`` if there is none."""
        return next((t for t in self.info.get("tasks") or [] if t.get("name") == name), {})


def read_run(run: Path) -> RunData:
    """Read what there is.

    Raises:
        UserError: ``run`` is not a folder that a run wrote.
    """
    if not run.is_dir():
        raise UserError(f"no run at {run}: give the folder that `polydistill distill --out` wrote")
    if not any((run / name).is_file() for name in MARKERS):
        raise UserError(f"{run} is not a run: none of {', '.join(MARKERS)} is in it")
    data = RunData(run)
    data.info = read_json(data, "run.json", "how it was run")
    summary = read_json(data, "summary.json", "the final evaluation")
    data.summary = summary if _told(summary) else {}
    try:
        data.recipe = (run / "recipe.yaml").read_text(errors="replace")
    except OSError:
        data.missing.append("the recipe (recipe.yaml)")
    read_metrics(data)
    data.student_scores, data.seeds = _scores(data, "scores.csv", "the student's episodes", "teacher", other=True)
    data.teacher_scores, _ = _scores(data, "teacher_scores.csv", "the teachers' episodes", "teacher", other=False)
    _inspections(data)
    _embedding(data)
    return data


def number(value: Any) -> float:
    """A finite number, or NaN for everything else a file may hold."""
    plain = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else math.nan


def series(lines: list[dict[str, Any]], task: str, key: str, x: str = "updates") -> tuple[np.ndarray, np.ndarray]:
    """x and y float64 ``[n]`` of one task's ``key`` over the lines that have it."""
    pairs = [(number(line.get(x)), number((line.get("tasks") or {}).get(task, {}).get(key))) for line in lines]
    xy = np.array(pairs, np.float64).reshape(-1, 2)
    xy = xy[np.isfinite(xy).all(1)]
    return xy[:, 0], xy[:, 1]


def read_json(data: RunData, name: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads((data.path / name).read_text())
    except FileNotFoundError:
        data.missing.append(f"{what} ({name})")
    except (OSError, ValueError):
        data.missing.append(f"{what} ({name} cannot be read)")
    else:
        if isinstance(found, dict):
            return found
        data.missing.append(f"{what} ({name} cannot be read)")
    return {}


def _told(record: dict[str, Any]) -> bool:
    """Whether what a record says of the tasks, if anything, is a mapping of each."""
    tasks = record.get("tasks") or {}
    return isinstance(tasks, dict) and all(isinstance(of, dict) for of in tasks.values())


def read_metrics(data: RunData) -> None:
    path = data.path / "metrics.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        if isinstance(record, dict) and _told(record):
            {"train": data.train, "eval": data.evals}.get(str(record.get("kind")), []).append(record)
    if not data.train:
        data.missing.append("the course of training (metrics.jsonl)")
    elif not data.evals:
        data.missing.append("evaluations during training")


def _scores(
    data: RunData, name: str, what: str, teacher: str, *, other: bool
) -> tuple[dict[str, np.ndarray], list[int]]:
    path = data.path / name
    if not path.is_file():
        data.missing.append(f"{what} ({name})")
        return {}, []
    try:
        rows = [r for r in read_rows(path) if (r.variant != teacher) == other and r.variant != "random"]
    except UserError:
        data.missing.append(f"{what} ({name} cannot be read)")
        return {}, []
    newest = {(r.task, r.variant, r.seed): 0 for r in rows}
    for r in rows:
        newest[r.task, r.variant, r.seed] = max(newest[r.task, r.variant, r.seed], r.updates)
    rows = [r for r in rows if r.updates == newest[r.task, r.variant, r.seed]]
    scores = {task: np.array([r.score for r in own]) for task, own in by_task(rows).items()}
    return scores, sorted({r.seed for r in rows})


def _inspections(data: RunData) -> None:
    folder, without = data.path / "inspection", []
    for task in data.tasks:
        path = folder / f"{stem(task)}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = dict(arrays)
            if not found.keys() >= {"value", "agreement", "confusion", "worst_regret"}:
                raise ValueError("not an inspection")
            data.inspections[task] = found
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):
            without.append(task)
        video = path.with_suffix(".mp4")
        if video.is_file():
            data.videos[task] = video
    if without:
        data.missing.append(f"the inspection of {', '.join(without)} (inspection/*.npz)")


def _embedding(data: RunData) -> None:
    try:
        with np.load(data.path / "inspection" / "embedding.npz", allow_pickle=False) as arrays:
            found = dict(arrays)
        if not str(found["note"]) and not found.keys() >= EMBEDDED:
            raise ValueError("not an embedding")
        data.embedding = found
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        data.missing.append("the look inside (inspection/embedding.npz)")
