"""Folders of finished runs of Distral, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from polydistill.evaluation.rows import Row, write_csv

ABOUT: dict[str, Any] = {
    "command": "polydistill distral a b", "commit": "0123abc", "dirty": True, "started": "2025-01-01T00:00:00",
    "machine": {"cpu": "Some CPU", "cores": 2, "ram_gb": 8, "device": "cpu"},
    "finished": "2025-01-01T00:01:00", "seconds": 61.4, "parameters": 1234,
}  # fmt: skip


def run_folder(
    path: Path, agent: str, seed: int, scores: dict[str, float], curve: list[float | None], alone: float | None = None
) -> Path:
    """A finished run of two tasks: two episodes each, 100 updates, 1,000 control steps each; the second task's curve is
    twice the first's."""
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(ABOUT))

    def rows(variant: str, shift: float) -> list[Row]:
        return [
            Row(variant, task, seed, 100, 2000, "drawn", k, 50, score + shift + (-1) ** k)
            for task, score in scores.items()
            for k in range(2)
        ]

    write_csv(path / "scores.csv", [*rows(agent, 0), *(rows("distilled", alone) if alone is not None else [])], Row)
    lines = [
        {
            "kind": "train", "updates": k, "control_steps": 2 * round(1000 * (k + 1) / len(curve)),
            "tasks": {t: {"return": None if x is None else x * (1 + i)} for i, t in enumerate(scores)},
        }
        for k, x in enumerate(curve)
    ]  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tra')
    return path
