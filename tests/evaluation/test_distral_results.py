"""Runs of Distral's agents: where each stands, tables, claims and pictures; typed-in numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.claims import Claim, PaperOrder
from polydistill.evaluation.distral_recording import add_run, sort_rows, write_claims
from polydistill.evaluation.distral_results import (
    AgentScore,
    ReturnPoint,
    learning_speed,
    read_results,
    standings,
)
from polydistill.evaluation.distral_tables import agents_table, order_table, percent_of, tasks_table
from polydistill.evaluation.experiment import update_readme
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.tables import fill_tables
from polydistill.reporting.distral_experiment import curves, draw, robustness
from tests.distral_runs import run_folder

CLAIMS = {
    "source": "A paper",
    "claims": [
        {"says": "KL is faster", "measure": "learning", "order": ["KL > A3C, other"]},
        {"says": "KL is better", "measure": "final", "order": ["KL > A3C"]},
        {"says": "nobody knows", "measure": "distilled", "order": ["KL > A3C"]},
    ],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two agents, two points of a grid, two seeds; A3C's best point is the one with the worse final scores."""
    out = tmp_path / "results" / "mazes"
    for seed in (2, 1):
        for agent, point, score, end in (
            ("KL", "beta=30", 6.0, 3.0), ("KL", "beta=300", 2.0, 1.0),
            ("A3C", "beta=30", 4.0, 2.0), ("A3C", "beta=300", 5.0, 1.0),
        ):  # fmt: skip
            scores = {"a": score + seed, "b": score + 2 + seed}
            alone = -1.0 if agent == "KL" else None
            run = run_folder(tmp_path / f"{agent}{point}{seed}", agent, seed, scores, [None, 0.0, end], alone)
            add_run(run, out, agent, point)
    sort_rows(out, ["A3C", "KL"], ["beta=30", "beta=300"], ["a", "b"])
    write_claims(out, PaperOrder.parse(CLAIMS, "here").pairs())
    return out


def test_learning_speed_is_the_curves_mean() -> None:
    assert learning_speed([(100, 2.0), (300, 4.0)]) == pytest.approx((2 * 100 + 3 * 200) / 300)  # 2.6667
    assert learning_speed([(300, 4.0)]) == 4.0


def test_a_run_becomes_rows(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "KL", 3, {"a": 5.0, "b": 6.0}, [None, 1.0, 2.0, 3.0], alone=-4.0)
    out = tmp_path / "results" / "mazes"
    added = add_run(run, out, "KL_2col", "beta=30")
    assert (out / "scores.csv").read_text() == (
        "variant,task,seed,settings,updates,control_steps,protocol,score,distilled,parameters\n"
        "KL_2col,a,3,beta=30,100,1000,drawn,5.0,1.0,1234\n"
        "KL_2col,b,3,beta=30,100,1000,drawn,6.0,2.0,1234\n"
    )
    assert read_csv(out / "scores.csv", AgentScore) == added
    assert (out / "curves.csv").read_text().splitlines() == [
        "variant,task,seed,settings,control_steps,score",
        "KL_2col,a,3,beta=30,500,1.0", "KL_2col,a,3,beta=30,750,2.0", "KL_2col,a,3,beta=30,1000,3.0",
        "KL_2col,b,3,beta=30,500,2.0", "KL_2col,b,3,beta=30,750,4.0", "KL_2col,b,3,beta=30,1000,6.0",
    ]  # fmt: skip
    assert (out / "command.txt").read_text() == (
        "# KL_2col, a + b, beta=30, seed 3\n"
        "# commit 0123abc with uncommitted changes; 2 cores of Some CPU, 8 GB, cpu; started 2025-01-01T00:00:00, 61 s\n"
        "polydistill distral a b\n"
    )
    before = {p.name: p.read_text() for p in out.iterdir()}
    add_run(run, out, "KL_2col", "beta=30")
    assert {p.name: p.read_text() for p in out.iterdir()} == before
    add_run(run, out, "KL_2col", "beta=300")
    assert [s.settings for s in read_csv(out / "scores.csv", AgentScore)] == ["beta=30"] * 2 + ["beta=300"] * 2
    alone = add_run(run_folder(tmp_path / "x", "A3C", 3, {"a": 5.0}, [1.0]), out, "A3C")
    assert math.isnan(alone[0].distilled)


def test_a_long_curve_is_thinned(tmp_path: Path) -> None:
    curve: list[float | None] = [float(k) for k in range(500)]
    add_run(run_folder(tmp_path / "run", "KL", 1, {"a": 0.0}, curve), tmp_path / "out", "KL")
    points = read_csv(tmp_path / "out/curves.csv", ReturnPoint)
    assert len(points) == 60
    assert (points[0].score, points[-1].score) == (0.0, 499.0)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("run.json", "{", "damaged"),
        ("run.json", "{}", "run.json or metrics.jsonl lacks something"),
        ("metrics.jsonl", '{"kind": "train"}\n', "run.json or metrics.jsonl lacks something"),
        ("scores.csv", "variant\n", "expected the columns"),
    ],
)
def test_a_damaged_run_changes_nothing(tmp_path: Path, name: str, text: str, match: str) -> None:
    run = run_folder(tmp_path / "run", "KL", 1, {"a": 0.0}, [1.0])
    (run / name).write_text(text)
    with pytest.raises(UserError, match=match):
        add_run(run, tmp_path / "out", "KL")
    assert not (tmp_path / "out").exists()


def test_standings(place: Path) -> None:
    scores, points = read_results(place)
    assert [(s.variant, s.settings, s.seed, s.task) for s in scores[:3]] == [
        ("A3C", "beta=30", 1, "a"), ("A3C", "beta=30", 1, "b"), ("A3C", "beta=30", 2, "a"),
    ]  # fmt: skip
    a3c, kl = standings(scores, points)
    assert (a3c.best, kl.best) == ("beta=30", "beta=30")  # A3C's final scores are better at beta=300
    # The curve of task a: 0 until 667 of 1000 control steps, then up to 2; b's is twice as high.
    assert a3c.learning == pytest.approx(1.5 * 2.0 * (333 / 2) / 1000)
    assert kl.final == {1: 8.0, 2: 9.0}
    assert kl.distilled == {1: 7.0, 2: 8.0}
    assert a3c.distilled == {}
    assert kl.runs == {("beta=30", 1): 8.0, ("beta=30", 2): 9.0, ("beta=300", 1): 4.0, ("beta=300", 2): 5.0}
    assert kl.tasks == {"a": {1: 7.0, 2: 8.0}, "b": {1: 9.0, 2: 10.0}}
    assert percent_of(kl, a3c) == pytest.approx((100 * 7.5 / 5.5 + 100 * 9.5 / 7.5) / 2)
    assert percent_of(a3c, a3c) == 100
    a3c.tasks["a"] = {1: -1.0}
    assert math.isnan(percent_of(kl, a3c))
    (no_curve, _) = standings(scores, [p for p in points if p.variant == "KL"])
    assert (no_curve.best, math.isnan(no_curve.learning)) == ("beta=30", True)
    (one,) = standings([s for s in scores if s.variant == "KL"], [p for p in points if p.settings == "beta=300"])
    assert one.best == "beta=300"  # the only point with a curve


AGENTS = """
| agent | best settings | learning speed | final score | against A3C | distilled policy alone | all runs | parameters |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
| A3C | beta=30 | 0.50 | 6.50 ± 0.71 | 100 %, 0.00 | – | 7.00 ± 0.82 (4) | 1,234 |
| KL | beta=30 | 0.75 | 8.50 ± 0.71 | 132 %, +2.00 | 7.50 ± 0.71 | 6.50 ± 2.38 (4) | 1,234 |

NOTE
From [scores.csv](scores.csv), [curves.csv](curves.csv).
"""

PER_TASK = """
| task | A3C | KL |
| --- | ---: | ---: |
| a | 5.50 ± 0.71 | 7.50 ± 0.71 / 6.50 ± 0.71 |
| b | 7.50 ± 0.71 | 9.50 ± 0.71 / 8.50 ± 0.71 |

Final score of the task's policy / of the distilled policy alone, at each agent's best settings.
From [scores.csv](scores.csv).
"""

ORDER = """
| measure | from best to worst |
| --- | --- |
| learning speed | KL 0.75, A3C 0.50 |
| final score | KL 8.50, A3C 6.50 |
| all runs | A3C 7.00, KL 6.50 |
| distilled policy alone | KL 7.50 |

| the paper says | measure | holds in | but not |
| --- | --- | ---: | --- |
| KL is faster | learning speed | 1 of 1 |  |
| KL is better | all runs | 0 of 1 | KL over A3C |
| nobody knows | distilled policy alone | – |  |

Pairs of agents in which the first one's mean is above the second one's. Paper: A paper.
From [paper.csv](paper.csv).
"""


NOTE = (
    "Returns, mean over 2 tasks ± standard deviation over 2 seeds. "
    "Learning speed: the training return's mean over the whole training. "
    "Best settings: those with the largest, as in the paper. "
    "All runs: final scores of all settings and seeds, ± over (so many) runs. "
    "Against A3C: % of its final score at its best settings, task by task, then the mean; and the difference of the "
    "means, which still says something where scores are near 0. "
    "Protocol drawn; 1,000 control steps of each task."
)


def test_tables(place: Path) -> None:
    rows = read_csv(place / "paper.csv", Claim)
    assert [(c.measure, c.above, c.below) for c in rows] == [
        ("learning", "KL", "A3C"), ("learning", "KL", "other"), ("final", "KL", "A3C"), ("distilled", "KL", "A3C"),
    ]  # fmt: skip
    write_claims(
        place, [Claim(c.says, c.measure.replace("final", "all runs"), c.above, c.below, c.source) for c in rows]
    )
    assert agents_table(place) == AGENTS.strip().replace("NOTE", NOTE)
    assert tasks_table(place) == PER_TASK.strip()
    assert order_table(place) == ORDER.strip()
    write_claims(place, [])
    assert not (place / "paper.csv").exists()
    assert order_table(place) == ORDER.strip().split("\n\n")[0]
    assert "[results/x/scores.csv](results/x/scores.csv)" in agents_table(place, "results/x")


def test_without_grid_seeds_and_a3c(tmp_path: Path) -> None:
    add_run(run_folder(tmp_path / "run", "KL", 1, {"a": 12.0}, [None]), tmp_path / "out", "KL")
    lines = agents_table(tmp_path / "out").splitlines()
    assert lines[0] == "| agent | learning speed | final score | distilled policy alone | all runs | parameters |"
    assert lines[2] == "| KL | – | 12.0 | – | 12.0 (1) | 1,234 |"
    assert "mean over 1 task, one seed." in lines[4]
    add_run(run_folder(tmp_path / "x", "KL", 1, {"a": 12.0}, [None]), tmp_path / "grid", "KL", "beta=3")
    assert "in the paper; the first ones where no training episode has ended." in agents_table(tmp_path / "grid")
    (tmp_path / "out/scores.csv").write_text((tmp_path / "out/scores.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="no results yet"):
        agents_table(tmp_path / "out")


def test_a_readme_has_the_tables_at_their_markers(place: Path) -> None:
    update_readme(place, "Words.", parts=("tasks", "order"))
    text = (place / "README.md").read_text()
    assert text.startswith("# mazes\n\nWords.\n\n<!-- table:. -->\n| agent | best settings |")
    assert f"<!-- table:.#tasks -->\n{PER_TASK.strip()}\n<!-- /table -->" in text
    assert "<!-- table:.#order -->\n| measure | from best to worst |" in text
    assert not fill_tables(place / "README.md")


def test_pictures(place: Path) -> None:
    assert [p.name for p in draw(place)] == ["curves.svg", "robustness.svg"]
    told = (place / "curves.svg").read_text()
    assert 'aria-label="Training return at the end: A3C 3, KL 4.5"' in told
    assert all(f">{text}</text>" in told for text in ("A3C", "KL", "a", "b", "control steps of each task"))
    told = (place / "robustness.svg").read_text()
    assert 'aria-label="Final scores, best to worst run: A3C 8 to 6, KL 9 to 4"' in told
    assert robustness([]) is None
    assert curves({}, ["a"]) is None
    one = {"KL": {(1, "a"): [(10, 2.0)], (2, "b"): [(10, 4.0)]}}  # one point; no seed has both tasks
    picture = curves(one, ["a", "b"])
    assert picture is not None
    assert 'aria-label="Training return at the end: "' in picture
    assert "KL 2" in (curves({"KL": {(1, "a"): [(10, 2.0)]}}, ["a"]) or "")
