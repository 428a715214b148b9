"""The report of a Distral run: typed-in files in, numbers and honest gaps out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from polydistill.errors import UserError
from polydistill.evaluation.rows import Row, write_csv
from polydistill.reporting.distral_page import is_distral
from polydistill.reporting.page import write_report

TASKS = ("maze <1>", "maze 2")
OWN, ALONE = {TASKS[0]: (10.0, 14.0), TASKS[1]: (2.0, 2.0)}, {TASKS[0]: (1.0, 2.0), TASKS[1]: (0.0, 1.0)}


def make_run(folder: Path, agent: str = "KL_1col", *, finished: bool = True) -> Path:
    folder.mkdir()
    info = {
        "command": "polydistill distral maze", "commit": "0123abcd", "started": "2026-01-02T03:04:05+00:00",
        "tasks": [{"name": name, "kind": "test"} for name in TASKS], "seconds": 511.4, "parameters": 1_234_567,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(info))
    recipe = {"tasks": [*TASKS], "settings": {"agent": agent, "beta": 4.0}, "seed": 7}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with (folder / "metrics.jsonl").open("w") as file:
        for k in range(1, 5):
            returns = {TASKS[0]: {"return": 3.0 * k}, TASKS[1]: {"return": float(k) if k > 1 else None}}
            file.write(json.dumps({"kind": "train", "control_steps": 2_000 * k, "tasks": returns}) + "\n")
    if finished:
        rows = [
            Row(variant, task, 7, 10, 8_000, "drawn", k, 100, score)
            for variant, scores in ((agent, OWN), *([] if agent == "A3C" else [("distilled", ALONE)]))
            for task in TASKS
            for k, score in enumerate(scores[task])
        ]
        write_csv(folder / "scores.csv", rows, Row)
    return folder


def text_of(html: str) -> str:
    """What stands outside of figures."""
    plain = re.sub(r"<(svg|style).*?</\1>|<[^>]+>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", plain)


def test_the_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x")
    assert is_distral(run)
    html = write_report(run).read_text()
    text = text_of(html)
    assert (
        "KL_1col has learnt 2 tasks together: mean return over tasks 7.0; its distilled policy alone gets 1.0." in text
    )
    assert "maze &lt;1&gt; 12.0 10.0 to 14.0 1.5 1.0 to 2.0 12.0 2 " in text
    assert "maze 2 2.0 2.0 to 2.0 0.5 0.0 to 1.0 4.0 2 " in text
    assert re.search(r"mean 7\.0 6\.0 to 8\.0 1\.0 0\.5 to 1\.5 8\.0 4 ", text)
    assert (
        "α is 1. β is 4: a nat away from the distilled policy costs 0.25 of return, a nat of randomness pays 0." in text
    )
    assert "1,234,567 parameters" in text
    for fact in ("polydistill distral maze", "0123abcd", "seed 7", "8 min 31 s", "2026-01-02 03:04:05 UTC"):
        assert fact in text
    assert "Missing" not in text
    assert "teacher" not in text
    labels = re.findall(r'aria-label="([^"]+)"', html)
    assert any(label.startswith("mean over tasks: the return is 8.0 at the end of training") for label in labels)
    assert any("Final returns" in label and "maze 2 2.0, distilled 0.5" in label for label in labels)
    assert html.count("<svg") == 4  # the final scores, the mean, both tasks
    assert ">4k<" in html  # control steps of each task
    assert ">8k<" not in html
    assert "<1>" not in html


def test_an_agent_without_a_distilled_policy(tmp_path: Path) -> None:
    text = text_of(write_report(make_run(tmp_path / "x", "A3C"), tmp_path / "y.html").read_text())
    assert "A3C has learnt 2 tasks together: mean return over tasks 7.0. Each task has a network of its own. 1," in text
    assert "distil" not in text.replace("polydistill", "")


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x", finished=False)
    text = text_of(write_report(run).read_text())
    assert "KL_1col learns 2 tasks together, 4,000 control steps of each so far; it has not been evaluated yet." in text
    assert "Not finished. This page shows what is there. Missing: the final scores (scores.csv)." in text
    assert "Learning curves" in text
    (run / "metrics.jsonl").unlink()
    (run / "run.json").write_text("{")
    (run / "scores.csv").write_text("nonsense")
    text = text_of(write_report(run).read_text())
    assert "(run.json cannot be read); the course of training (metrics.jsonl); the final scores (" in text
    assert "Learning curves" not in text


def test_other_folders_are_other_runs(tmp_path: Path) -> None:
    assert not is_distral(tmp_path)
    (tmp_path / "recipe.yaml").write_text("settings: [1")
    assert not is_distral(tmp_path)
    (tmp_path / "recipe.yaml").write_text("student: {kind: nature}")
    assert not is_distral(tmp_path)
    with pytest.raises(UserError, match="no run at"):
        write_report(tmp_path / "none")
