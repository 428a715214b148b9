"""The page's look inside the student: what is drawn where, and what is said when there is nothing to draw."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydistill.reporting.data import read_run
from polydistill.reporting.embedding import LEVELS, SIZE, levels, look_inside, scatter
from polydistill.reporting.page import write_report
from tests.reporting.test_report import EVIL, Page


def make_run(folder: Path) -> Path:
    """A run that has just begun: what else a page shows is tested elsewhere, and takes time."""
    (folder / "inspection").mkdir(parents=True)
    tasks = [{"name": name, "kind": "gymnasium"} for name in (EVIL, "freeway")]
    (folder / "run.json").write_text(json.dumps({"tasks": tasks}))
    return folder


def embedding(**changes: Any) -> dict[str, np.ndarray]:
    """Two tasks of 20 states each; the first convolution is each task's own."""
    rng = np.random.default_rng(0)
    layer = {"points": rng.normal(size=(40, 2)), "note": "", "width": 512, "within": 0.25, "same": 0.875}
    arrays = {
        "names": [EVIL, "freeway"], "task": np.repeat([0, 1], 20), "value": np.linspace(-3, 5, 40),
        "position": np.arange(40) * 100, "marked": [0, 39], "marked_as": ["lowest", "highest"],
        "picture_0": np.zeros((4, 4), np.uint8), "picture_1": np.zeros((0, 0), np.uint8), "note": "",
        "copies": 3, "every": 8, "epsilon": 0.05, "perplexity": 30.0, "components": 50, "seed": 1,
        "first_convolution": True, "first_shared": False,
        **{f"{name}_{key}": value for name in ("first", "hidden") for key, value in layer.items()},
    }  # fmt: skip
    return {key: np.asarray(value) for key, value in {**arrays, **changes}.items()}


def page(tmp_path: Path, **changes: Any) -> str:
    run = make_run(tmp_path / "x")
    np.savez(run / "inspection" / "embedding.npz", **embedding(**changes))
    html = write_report(run).read_text()
    Page(html)  # checks the markup
    return html[html.index('<section aria-labelledby="inside">') : html.index('<section aria-labelledby="again">')]


def test_all_of_it(tmp_path: Path) -> None:
    html = page(tmp_path, first_width=12_800)
    text = Page(html).text
    for said in (
        "t-SNE, perplexity 30, of the activations' first 50 principal components",
        "ε 0.05; of 3 copies of each task, one state of every 8 control steps was kept, 20 per task",
        f"By task: {EVIL}, freeway. By value:",
        "First convolution 87.5 % of a state's ten nearest neighbours are of its own task; 25 % of the variance of the "
        "12,800 activations lies within tasks. In this network every task has a first layer of its own:",
        "Last hidden layer 87.5 % of a state's ten nearest neighbours are of its own task; 25 % of the variance of the "
        "512 activations lies within tasks. By task",
        f"1 {EVIL}: lowest value, −3 · step 0",
        "2 freeway: highest value, 5 · step 3,900",
    ):
        assert said in text, said
    assert text.count("In this network every") == 1
    assert html.count("<svg") == html.count('role="img"') == 4
    assert html.count("data:image/png;base64,") == 1
    plots = re.findall(r"<svg.*?</svg>", html, re.S)
    for plot in plots:
        assert len(re.findall(r"M[\d.]+ [\d.]+h0", plot)) == 40  # every state, once
        assert plot.count("<circle") == 2
        assert not re.search(r"#[0-9a-f]{6}\b|\bnan\b", plot)
        width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', plot).groups())  # type: ignore[union-attr]
        for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", plot):
            assert 0 < float(x) < width
            assert 0 < float(y) < height
    by_task = dict(re.findall(r'<path d="([^"]+)"[^>]*style="stroke:(var\(--task-\d\))', plots[0]))
    assert {colour: d.count("h0") for d, colour in by_task.items()} == {"var(--task-0)": 20, "var(--task-1)": 20}
    assert "<b>Evil" not in html


def test_levels_are_ranks_within_a_task() -> None:
    value = np.array([10, 11, 12, 13, 14, 15, 16, 17, 0.7, 0.1, np.nan, 5, 5, 5])
    task = np.array([0] * 8 + [1] * 3 + [2] * 3)
    assert levels(value, task).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 6, 2, -1, 4, 4, 4]
    assert levels(np.arange(4000.0), np.zeros(4000, int)).max() == LEVELS - 1


def test_one_scale_for_both_axes_and_up_is_up() -> None:
    square = np.array([[0, 0], [1, 0], [0, 3]])
    plot = scatter(square, [(np.arange(3), "red", False)], description="x")
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p) for p in re.findall(r"M([\d.]+) ([\d.]+)h0", plot))
    assert (y0, x0) == (y1, x2)
    assert y2 < y0
    assert (y0 - y2) == pytest.approx(3 * (x1 - x0), abs=0.2)


def test_names_and_marks_keep_off_each_other() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 2))
    middle = int(np.linalg.norm(points, axis=1).argmin())
    rows, marks = np.arange(300), [middle, middle]
    plot = scatter(points, [(rows, "red", False)], labels=[(rows, "pong", "red")], marked=marks, description="x")
    circles = np.array(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', plot), float)
    assert np.linalg.norm(circles[0] - circles[1]) > 15
    label = re.search(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="middle" dominant', plot)
    assert label is not None
    x, y = map(float, label.groups())
    assert all(abs(y - b) > 18 or abs(x - a) > 20 for a, b in circles)
    assert np.hypot(x - circles[0][0], y - circles[0][1]) < SIZE / 4


def test_the_ninth_task_is_drawn_in_squares(tmp_path: Path) -> None:
    names = [f"task {g}" for g in range(10)]
    html = page(tmp_path, names=names, task=np.repeat(np.arange(10), 4))
    first = re.findall(r"<svg.*?</svg>", html, re.S)[0]
    assert re.findall(r'stroke-linecap="(\w+)" style="stroke:var\(--task-0\)', first) == ["round", "square"]


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    unknown = np.r_[np.full(20, np.nan), np.arange(20)]
    html = page(tmp_path, value=unknown, marked=[39], marked_as=["highest"], first_note="the reason")
    text = Page(html).text
    assert "First convolution Not shown: the reason." in text
    assert f"No value is known in {EVIL}:" in text
    assert html.count("<svg") == 2
    assert html.count('style="stroke:var(--rule);') == 1  # states without a value


def test_no_teacher_with_values(tmp_path: Path) -> None:
    html = page(tmp_path, value=np.full(40, np.nan), marked=[], marked_as=np.zeros(0, "U8"))
    assert html.count("<svg") == 2
    assert "By value" not in html
    assert "numbered states" not in html


def test_one_task_is_coloured_by_value_alone(tmp_path: Path) -> None:
    html = page(tmp_path, names=["freeway"], task=np.zeros(40, int))
    assert html.count("<svg") == 2
    assert "By task" not in html
    assert "nearest neighbours are" not in html


def test_the_library_was_not_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x")
    np.savez(run / "inspection" / "embedding.npz", note=np.array("openTSNE is not installed: pip install 'x[y]'"))
    html = write_report(run).read_text()
    assert "is not shown: openTSNE is not installed: pip install 'x[y]'." in Page(html).text
    assert "(inspection/embedding.npz)" not in html


@pytest.mark.parametrize("content", [None, b"PK\x03\x04 cut", "half"])
def test_a_run_without_it_or_with_a_damaged_one(tmp_path: Path, content: bytes | str | None) -> None:
    run = make_run(tmp_path / "x")
    path = run / "inspection" / "embedding.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        np.savez(path, **{k: v for k, v in embedding().items() if k != "hidden_points"})
    data = read_run(run)
    assert data.embedding == {}
    assert look_inside(data) is None
    html = write_report(run).read_text()
    assert 'id="inside"' not in html
    assert "the look inside (inspection/embedding.npz)" in html
