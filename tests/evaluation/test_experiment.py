"""Run folders into experiments, and numbers into Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.curves import CurvePoint
from polydistill.evaluation.experiment import add_run, command_block, sort_experiment, update_readme, write_paper
from polydistill.evaluation.paper_numbers import PaperNumber
from polydistill.evaluation.rows import Row, append_rows, read_csv
from polydistill.evaluation.scores import summarise, to_json
from polydistill.evaluation.tables import Result, fill_tables
from polydistill.reporting.page import write_picture

RUN: dict[str, Any] = {
    "command": "polydistill distill --teachers zoo/pong zoo/freeway --seed 0",
    "commit": "0123abc",
    "dirty": False,
    "started": "2025-01-01T00:00:00",
    "finished": "2025-01-01T00:10:00",
    "wall_seconds": 600.4,
    "versions": {},
    "machine": {"cpu": "Some CPU", "cores": 2, "ram_gb": 8, "device": "cpu"},
    "student": {"kind": "mimic", "parameters": 1, "trainable": 1, "teacher_parameters": 2},
    "tasks": [{"name": "pong", "teacher": "zoo/pong"}, {"name": "freeway", "teacher": "zoo/freeway"}],
}


def run_folder(
    path: Path,
    *,
    kind: str = "mimic",
    seed: int = 0,
    pong: float = 19.0,
    teacher: float = 20.0,
    games: tuple[str, ...] = ("pong", "freeway"),
    end: int = 500,
) -> Path:
    """A finished run with an evaluation at 0 updates and one at ``end``, two episodes a task; teachers too."""
    path.mkdir()
    (path / "run.json").write_text(json.dumps({**RUN, "student": {**RUN["student"], "kind": kind}}))

    def rows(variant: str, updates: int, scores: dict[str, float]) -> list[Row]:
        return [
            Row(variant, task, seed, updates, 4 * updates, "noop", i, 100, score + (-1) ** i)
            for task, score in scores.items()
            if task in games
            for i in range(2)
        ]

    teachers, last = (
        rows("teacher", 0, {"pong": teacher, "freeway": 28.0}),
        rows(kind, end, {"pong": pong, "freeway": 28.0}),
    )
    append_rows(path / "scores.csv", [*rows(kind, 0, {"pong": -21.0, "freeway": 0.0}), *last, *teachers])
    summary = summarise(last, teachers, {"pong": -20.0}, protocol={"name": "noop", "epsilon": 0.05, "episodes": 2})
    (path / "summary.json").write_text(to_json(summary))
    lines = [
        {"kind": "train", "updates": 10, "loss": 0.5},
        *(
            {
                "kind": "eval", "updates": u, "control_steps": 4 * u,
                "tasks": {games[0]: {"score": s, "low": None, "high": s + 1, "teacher": 20.0, "percent": 5 * s}},
            }
            for u, s in ((0, -21.0), (end, 19.0))
        ),
    ]  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "ev')
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_fills_an_experiment(tmp_path: Path) -> None:
    experiment = tmp_path / "results" / "demo"
    added = add_run(run_folder(tmp_path / "run"), experiment)
    assert sorted(files(experiment)) == ["README.md", "command.txt", "curves.csv", "scores.csv"]
    assert (experiment / "scores.csv").read_text() == (
        "variant,task,seed,updates,control_steps,protocol,score,teacher_score,percent,parameters\n"
        "mimic,pong,0,500,2000,noop,19.0,20.0,95.0,1\n"
        "mimic,freeway,0,500,2000,noop,28.0,28.0,100.0,1\n"
    )
    assert read_csv(experiment / "scores.csv", Result) == added
    points = read_csv(experiment / "curves.csv", CurvePoint)
    assert [(p.updates, p.score, p.percent) for p in points] == [(0, -21.0, -105.0), (500, 19.0, 95.0)]
    assert (experiment / "command.txt").read_text() == (
        "# mimic, pong + freeway, seed 0, noop\n"
        "# commit 0123abc; 2 cores of Some CPU, 8 GB, cpu; started 2025-01-01T00:00:00, 600 s\n"
        "polydistill distill --teachers zoo/pong zoo/freeway --seed 0\n"
    )
    assert (experiment / "README.md").read_text() == README.lstrip("\n")


def test_every_commit_of_a_run_is_named() -> None:
    def told(*sittings: tuple[str, bool]) -> str:
        of = [{"commit": c, "dirty": d, "started": ""} for c, d in sittings]
        return command_block({**RUN, "commit": "last", "sittings": of}, "x")[1]

    assert told(("last", False), ("last", False)).startswith("# commit last; 2 cores")
    assert told(("a", False), ("a", True), ("a", False), ("last", False)).startswith(
        "# commit a, then a with uncommitted changes, then last; 2 cores"
    )


README = """
# demo

<!-- table:. -->
| task | teacher | mimic |
| --- | ---: | ---: |
| pong | 20.0 | 19.0 (95.0 %) |
| freeway | 28.0 | 28.0 (100.0 %) |
| **geometric mean**, % of teacher |  | 97.5 |
| **arithmetic mean**, % of teacher |  | 97.5 |
| **IQM**, % of teacher |  | 97.5 |
| updates / control steps of a run |  | 500 / 2,000 |
| parameters |  | 1 |

Raw scores (% of teacher) under protocol noop, one seed.
From [scores.csv](scores.csv).
<!-- /table -->

Commands, commits and machine: `command.txt`.
"""


def test_adding_again_changes_nothing_and_a_new_run_replaces_its_own(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    first = run_folder(tmp_path / "a")
    add_run(first, experiment)
    add_run(run_folder(tmp_path / "b", seed=1, pong=17.0), experiment)
    before = files(experiment)
    add_run(run_folder(tmp_path / "b-again", seed=1, pong=17.0), experiment)
    assert files(experiment) == before
    add_run(run_folder(tmp_path / "c", seed=1, pong=15.0), experiment)
    scores = {(r.seed, r.task): r.score for r in read_csv(experiment / "scores.csv", Result)}
    assert scores == {(0, "pong"): 19.0, (0, "freeway"): 28.0, (1, "pong"): 15.0, (1, "freeway"): 28.0}
    assert (experiment / "command.txt").read_text().count("polydistill distill") == 2
    assert len(read_csv(experiment / "curves.csv", CurvePoint)) == 4
    assert "| pong | 20.0 | 17.0 ± 2.8 (85.0 %) |" in (experiment / "README.md").read_text()


def test_variants_stand_beside_each_other(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    add_run(run_folder(tmp_path / "a", pong=-21.0), experiment)
    add_run(run_folder(tmp_path / "b", kind="task_torsos"), experiment)
    add_run(run_folder(tmp_path / "c"), experiment, variant="a|b")
    text = (experiment / "README.md").read_text()
    assert "| task | teacher | mimic | task_torsos | a\\|b |" in text
    assert "| pong | 20.0 | -21.0 (-105.0 %) | 19.0 (95.0 %) | 19.0 (95.0 %) |" in text
    assert "| **geometric mean**, % of teacher |  | 10.0 | 97.5 | 97.5 |" in text
    assert "counts as 1 %" in text


def test_a_negative_teacher_and_a_missing_task_leave_dashes(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    add_run(run_folder(tmp_path / "a", teacher=-15.0), experiment)
    text = (experiment / "README.md").read_text()
    assert "| pong | -15.0 | 19.0 (– %) |" in text
    assert "| **IQM**, % of teacher |  | – |" in text
    only = run_folder(tmp_path / "b", teacher=-15.0, games=("pong",))
    assert write_picture(only, experiment / "scores.svg") is None  # no per cents of such a teacher
    assert not (experiment / "scores.svg").exists()


def test_words_written_by_hand_stay(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    add_run(run_folder(tmp_path / "a"), experiment)
    readme = experiment / "README.md"
    readme.write_text("# Mine\n\nBefore.\n\n" + readme.read_text().split("\n\n", 1)[1] + "\nAfter.\n")
    add_run(run_folder(tmp_path / "b", pong=10.0), experiment)
    text = readme.read_text()
    assert text.startswith("# Mine\n\nBefore.\n")
    assert text.endswith("\nAfter.\n")
    assert "10.0 (50.0 %)" in text
    assert "19.0" not in text
    before = text
    update_readme(experiment)
    assert readme.read_text() == before


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", None, "no such file"),
        ("run.json", "{", "damaged"),
        ("run.json", "{}", "'student'"),
        ("summary.json", "[]", "lacks something"),
        ("scores.csv", None, "cannot read"),
        ("metrics.jsonl", '{"kind": "eval"}\n', "'tasks'"),
    ],
)
def test_a_damaged_run_changes_nothing(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    experiment, run = tmp_path / "demo", run_folder(tmp_path / "run")
    add_run(run, experiment)
    before = files(experiment)
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        add_run(run, experiment)
    assert "\n" not in str(caught.value)
    assert files(experiment) == before


@pytest.mark.parametrize("name", ["README.md", "command.txt"])
def test_a_file_that_is_no_text_is_found_before_anything_is_written(tmp_path: Path, name: str) -> None:
    experiment = tmp_path / "demo"
    add_run(run_folder(tmp_path / "a"), experiment)
    (experiment / name).write_bytes(b"\xff\xfe")
    before = files(experiment)
    with pytest.raises(UserError, match=f"{name}: cannot be read as text"):
        add_run(run_folder(tmp_path / "b", pong=10.0), experiment)
    assert files(experiment) == before


def test_a_run_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    (run / "scores.csv").unlink()
    append_rows(run / "scores.csv", [Row("teacher", "pong", 0, 0, 0, "noop", 0, 9, 20.0)])
    with pytest.raises(UserError, match="evaluate the run first"):
        add_run(run, tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_the_repository_readme_is_filled_and_then_left_alone(tmp_path: Path) -> None:
    add_run(run_folder(tmp_path / "run"), tmp_path / "results" / "demo")
    readme = tmp_path / "README.md"
    marked = "<!-- table:results/demo -->\nstale 12.3\n<!-- /table -->"
    readme.write_text(f"# Top\n\n{marked}\n\nMiddle.\n\n{marked}\n\nEnd.\n")
    assert fill_tables(readme)
    text = readme.read_text()
    assert "stale" not in text
    assert text.count("| pong | 20.0 | 19.0 (95.0 %) |") == 2
    assert "[results/demo/scores.csv](results/demo/scores.csv)" in text
    assert [line for line in text.splitlines() if line in ("# Top", "Middle.", "End.")] == ["# Top", "Middle.", "End."]
    changed = readme.stat().st_mtime_ns
    assert not fill_tables(readme)
    assert readme.stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:results/demo -->\n", "needs one"),
        ("<!-- /table -->\n<!-- table:results/demo -->\n", "needs one"),
        ("<!-- table:a --> <!-- table:b --> <!-- /table --> <!-- /table -->", "not followed by"),
        ("<!-- table:results/none -->\n<!-- /table -->\n", "cannot read the scores"),
    ],
)
def test_broken_markers_are_refused_and_nothing_is_written(tmp_path: Path, text: str, message: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(UserError, match=message):
        fill_tables(readme)
    assert readme.read_text() == text


def test_runs_of_single_tasks_live_together(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    for task in ("pong", "freeway"):
        add_run(run_folder(tmp_path / task, games=(task,)), experiment)
    assert {(r.task, r.seed) for r in read_csv(experiment / "scores.csv", Result)} == {("pong", 0), ("freeway", 0)}
    assert {p.task for p in read_csv(experiment / "curves.csv", CurvePoint)} == {"pong", "freeway"}
    commands = (experiment / "command.txt").read_text()
    assert commands.count("polydistill distill") == 2
    assert "# mimic, pong, seed 0, noop\n" in commands
    before = files(experiment)
    add_run(run_folder(tmp_path / "again", games=("pong",)), experiment)
    after = files(experiment)
    assert sorted(after["scores.csv"].splitlines()) == sorted(before["scores.csv"].splitlines())
    assert after["command.txt"].count(b"polydistill distill") == 2


def test_a_paper_stands_beside_and_each_variant_has_its_budget(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    write_paper(
        experiment,
        [
            PaperNumber("pong", "kl", 101.0, "A paper, Table 1; its own starts", "5 million / 27 million"),
            PaperNumber("freeway", "kl", 99.0, "A paper, Table 1; its own starts"),
            PaperNumber("pong", "big", 50.0, "A paper, Table 2"),
            PaperNumber("qbert", "kl", 155.0, "A paper, Table 1; its own starts"),
        ],
    )
    add_run(run_folder(tmp_path / "a"), experiment, variant="kl")
    add_run(run_folder(tmp_path / "b", end=1500), experiment, variant="big")
    add_run(run_folder(tmp_path / "c"), experiment, variant="none")
    text = (experiment / "README.md").read_text()
    assert "| task | teacher | kl | kl, paper | big | big, paper | none |\n" in text
    assert "| pong | 20.0 | 19.0 (95.0 %) | 101.0 % | 19.0 (95.0 %) | 50.0 % | 19.0 (95.0 %) |\n" in text
    assert "| freeway | 28.0 | 28.0 (100.0 %) | 99.0 % | 28.0 (100.0 %) | – | 28.0 (100.0 %) |\n" in text
    assert "| **geometric mean**, % of teacher |  | 97.5 | 100.0 | 97.5 | – | 97.5 |\n" in text
    assert "| parameters |  | 1 |  | 1 |  | 1 |\n" in text
    assert "counts as 1 %" not in text  # a task that the paper lacks is no score of 0
    budgets = "500 / 2,000 | 5 million / 27 million | 1,500 / 6,000 | – | 500 / 2,000"
    assert f"| updates / control steps of a run |  | {budgets} |\n" in text
    assert "under protocol noop, one seed.\n" in text
    told = (
        "Paper, in % of its own teachers: A paper, Table 1; its own starts; A paper, Table 2 ([paper.csv](paper.csv))."
    )
    assert told in text
    write_paper(experiment, [])
    update_readme(experiment)
    assert not (experiment / "paper.csv").exists()
    assert "paper" not in (experiment / "README.md").read_text()


def test_an_experiment_has_its_own_order(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    for variant, seed in (("b", 1), ("z", 0), ("a", 0), ("b", 0)):
        add_run(run_folder(tmp_path / f"{variant}{seed}", seed=seed), experiment, variant=variant)
    before = set(read_csv(experiment / "scores.csv", Result))
    sort_experiment(experiment, ["a", "b"], ["freeway", "pong"])
    rows = read_csv(experiment / "scores.csv", Result)
    assert [(r.variant, r.seed, r.task) for r in rows[:4]] == [
        ("a", 0, "freeway"), ("a", 0, "pong"), ("b", 0, "freeway"), ("b", 0, "pong"),
    ]  # fmt: skip
    assert rows[-1].variant == "z"
    assert set(rows) == before
    points = read_csv(experiment / "curves.csv", CurvePoint)
    assert [(p.variant, p.seed, p.updates) for p in points[:4]] == [
        ("a", 0, 0), ("a", 0, 500), ("b", 0, 0), ("b", 0, 500),
    ]  # fmt: skip


def test_words_and_pictures_of_a_readme(tmp_path: Path) -> None:
    experiment = tmp_path / "demo"
    add_run(run_folder(tmp_path / "a"), experiment, words="What is compared.\n")
    add_run(run_folder(tmp_path / "b", seed=1), experiment, words="Other words.")
    readme = experiment / "README.md"
    assert readme.read_text().startswith("# demo\n\nWhat is compared.\n\n<!-- table:. -->\n| task |")
    assert "Other words" not in readme.read_text()
    for _ in range(2):
        update_readme(experiment, pictures={"curves.svg": "the curves"})
    assert readme.read_text().count("![the curves](curves.svg)") == 1
