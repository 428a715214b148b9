"""What the files beside a student say of it, as far as they are there and whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from polydistill.ops.policy import SOFTENED


def objective(recipe: dict[str, Any]) -> tuple[str | None, float]:
    """The loss of a distillation, or of a student that followed a learner, and what its logits are multiplied by."""
    group = next((g for g in (recipe.get("objective"), recipe.get("shadow")) if isinstance(g, dict)), {})
    loss, temperature = group.get("loss"), group.get("temperature")
    return loss, float(temperature) if loss in SOFTENED and isinstance(temperature, int | float) else 1.0


def teacher_kinds(folder: Path) -> dict[str, str]:
    """What each task's teacher gave, ``q`` or ``logits``, as far as ``run.json`` says."""
    tasks = mapping(folder / "run.json").get("tasks")
    kinds = {}
    for entry in tasks if isinstance(tasks, list) else []:
        if isinstance(entry, dict):
            card = entry.get("teacher_card")
            kind = entry.get("teacher_kind") or (card.get("kind") if isinstance(card, dict) else None)
            kinds[str(entry.get("name"))] = str(kind or "q")
    return kinds


def mapping(path: Path) -> dict[str, Any]:
    """What a YAML or JSON file holds; empty where it is missing, damaged or something else."""
    try:
        content = (json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
