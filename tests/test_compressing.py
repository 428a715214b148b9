"""The search for the smallest student: which sizes are made, what is kept, what it costs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import polydistill
from polydistill import api, compressing, evaluating
from polydistill.compressing import Compression, Rule, Search, compress
from polydistill.envs.catch import catch_task
from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError
from polydistill.evaluation.latency import latency
from polydistill.evaluation.rows import Row, read_csv
from polydistill.nets.ladder import Size, ladder
from polydistill.reporting.pareto import MEAN, Cost, ParetoRow, markdown, picture, teacher_rows
from polydistill.tasks import Suite
from polydistill.training.callbacks import Callback
from tests.command_line import typed
from tests.distilling import NAMES, small, write_teacher

TEACHER = 7_619  # parameters of a catch teacher with 64 hidden units
QUICK = Cost(1, 1.0, 0.1, 0.2)
QUICKLY = ["zoo/catch", "--recipe", "recipe.yaml", "--updates", "5", "--sizes", "50"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two teachers, a quick recipe, and latencies that cost nothing."""
    for name in NAMES:
        write_teacher(tmp_path / "zoo" / name, name)
    recipe = {"teachers": ["zoo/catch"], **small(schedule={"total_updates": 10})}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compressing, "latency", lambda *_: 0.5)
    return tmp_path


# The ladder ----------------------------------------------------------------------------------------------------------


def test_the_ladder_of_an_atari_teacher() -> None:
    suite = Suite((resolve_task("pong"),))
    found = ladder(suite, 1_693_362)
    assert [s.name for s in found] == ["50pct", "net1", "12pct", "net2", "net3", "2pct", "1pct"]
    by_name = {s.name: s.parameters for s in found}
    # Rusu et al. 2016, Table A1
    assert (by_name["net1"], by_name["net2"], by_name["net3"]) == (427_874, 113_346, 61_954)
    for share in (50, 12, 2, 1):
        assert by_name[f"{share}pct"] == pytest.approx(share / 100 * 1_693_362, rel=0.03)
    half = ladder(suite, 1_693_362, ["25.27%", "net1"])  # half of every width is net1 itself
    assert [(s.name, s.options) for s in half] == [("25.27pct", {"channels": [16, 32, 32], "hidden": 256})]


def test_a_ladder_leaves_out_what_is_no_compression_and_what_cannot_be() -> None:
    suite = Suite((catch_task("catch"),))
    assert [s.name for s in ladder(suite, TEACHER)] == ["50pct"]  # the layer that reads the screen has 3,264 itself
    assert [s.name for s in ladder(suite, TEACHER, ["net3"])] == ["net3"]  # asked for by name
    assert [s.name for s in ladder(suite, TEACHER, ["50", "90", "50.01"])] == ["90pct", "50pct"]
    with pytest.raises(UserError, match=r"--sizes 5: the network of these tasks comes no closer than 43.8 %"):
        ladder(suite, TEACHER, ["5"])
    with pytest.raises(UserError, match="fewer than any student"):
        ladder(suite, 500)


@pytest.mark.parametrize("wrong", ["net4", "0", "-3", "101", "nan"])
def test_what_is_no_size(wrong: str) -> None:
    with pytest.raises(UserError, match=f"--sizes {wrong}: write a percentage of the teacher's parameters or a name"):
        ladder(Suite((catch_task("catch"),)), TEACHER, [wrong])


# The search, on percentages that are given ---------------------------------------------------------------------------

Found = Callable[..., tuple[Compression, list[str]]]


@pytest.fixture
def search(place: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """Search the sizes 90 .. 45; returns what was found and the order in which sizes were made."""
    names = ("90", "80", "70", "60", "50", "45")

    def run(
        percents: list[float], keep: float, rule: Rule = "mean", every: bool = False
    ) -> tuple[Compression, list[str]]:
        told = dict(zip([f"{n}pct" for n in names], percents, strict=True))
        made: list[str] = []

        def distill(recipe: object, folder: Path, **_: object) -> api.Result:
            made.append(folder.name)
            return api.Result(folder, True, None, None)  # type: ignore[arg-type]

        def look(self: Search, size: Size) -> None:
            p = told[size.name]
            self._rows[size.name] = [
                ParetoRow(size.name, "catch", size.parameters, 1.0, 0.1, 0.2, 10, p, 100.0, p, p - 4, p + 4)
            ]

        monkeypatch.setattr(api, "distill", distill)
        monkeypatch.setattr(Search, "look", look)
        monkeypatch.setattr(compressing, "_keep_student", lambda *_: None)
        monkeypatch.setattr(compressing, "_check", lambda *_: None)  # that each could be made is another test's matter
        found = compress(["zoo/catch"], "out", keep=keep, rule=rule, sizes=names, every=every, recipe="recipe.yaml")
        return found, made

    return run


@pytest.mark.parametrize(
    ("percents", "winner", "made"),
    [
        ([99, 98, 97, 96, 90, 80], "60pct", ["70pct", "50pct", "60pct"]),
        ([99, 99, 99, 99, 99, 99], "45pct", ["70pct", "50pct", "45pct"]),
        ([99, 10, 10, 10, 10, 10], "90pct", ["70pct", "90pct", "80pct"]),
        ([10, 10, 10, 10, 10, 10], None, ["70pct", "90pct"]),
        ([nan, nan, nan, nan, nan, nan], None, ["70pct", "90pct"]),
    ],
)
def test_halving_finds_the_smallest(search: Found, percents: list[float], winner: str | None, made: list[str]) -> None:
    found, order = search(percents, 95.0)
    assert (found.winner, found.finished) == (winner, True)
    assert order == made
    assert [r.size for r in found.rows if r.kept] == ([winner] if winner else [])


def test_all_sizes_and_a_ladder_that_is_not_monotone(search: Found) -> None:
    found, made = search([99, 10, 99, 10, 99, 10], 95.0, every=True)
    assert made == ["90pct", "80pct", "70pct", "60pct", "50pct", "45pct"]
    assert found.winner == "50pct"
    assert [r.size for r in found.rows] == ["teacher", *made]


def test_the_lower_end_may_count(search: Found) -> None:
    percents = [100.0, 100.0, 98.0, 97.0, 96.0, 95.0]  # each 4 less at the lower end
    assert search(percents, 95.0)[0].winner == "45pct"
    found, _ = search(percents, 95.0, "low")
    assert found.winner == "80pct"
    none, _ = search([97.0] * 6, 95.0, "low")
    assert (none.winner, none.best) == (None, ("90pct", 93.0))


# The whole path ------------------------------------------------------------------------------------------------------


def passes(search: Search, size: Size) -> bool:
    """Stands in for the rule: ten updates teach nothing that keeps 1 %, but nothing keeps 1000 % either."""
    return search.keep < 500


def test_a_compression_from_end_to_end(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["zoo/catch", "--recipe", "recipe.yaml", "--updates", "10", "--sizes", "90", "50", "--out", "out"]
    monkeypatch.setattr(Search, "passes", passes)
    assert typed(monkeypatch, "compress", *flags, "--keep", "1") == 0
    out = place / "out"
    assert {p.name for p in out.iterdir()} == {
        "90pct", "50pct", "student", "pareto.csv", "pareto.md", "pareto.svg",
    }  # fmt: skip
    rows = read_csv(out / "pareto.csv", ParetoRow)
    assert [(r.size, r.task, r.kept) for r in rows] == [
        ("teacher", "catch", 0), ("90pct", "catch", 0), ("50pct", "catch", 1),
    ]  # fmt: skip
    assert rows[0].parameters == TEACHER
    assert rows[2].parameters_percent == pytest.approx(50, abs=1)
    assert (rows[2].updates, rows[2].latency_1_ms) == (10, 0.5)
    assert rows[2].percent == pytest.approx(100 * rows[2].score / rows[2].teacher_score)
    assert rows[2].low <= rows[2].percent <= rows[2].high
    text = (out / "pareto.md").read_text()
    assert "Bold: the smallest that keeps 1 %. The percentage itself counts. The choice was made by these same" in text
    episodes = yaml.safe_load((out / "50pct/recipe.yaml").read_text())["evaluation"]["final_episodes"]
    assert f"these same {episodes} games a task, so what the bold one keeps is on average overstated" in text
    said = capsys.readouterr().out
    assert said.endswith("50pct: out/student\n")
    assert text in said
    assert (out / "student/student.safetensors").read_bytes() == (out / "50pct/student.safetensors").read_bytes()
    obs = np.zeros((2, *catch_task("catch").obs_shape), catch_task("catch").obs_dtype)
    np.testing.assert_array_equal(
        polydistill.load(out / "student").outputs("catch")(obs), polydistill.load(out / "50pct").outputs("catch")(obs)
    )
    command = yaml.safe_load((out / "student/run.json").read_text())["command"]
    assert command.startswith("polydistill distill recipe.yaml --teachers zoo/catch --out out/50pct --seed 1 --student")

    monkeypatch.setattr(api, "distill", None)  # nothing is made again
    assert typed(monkeypatch, "compress", *flags, "--keep", "1000") == 2
    said = capsys.readouterr().err
    assert said.startswith("polydistill: no size keeps 1000 %: the best, ")
    assert said.count("\n") == 1
    assert not (out / "student").exists()
    assert "None of them keeps 1000 %. The percentage itself counts. Milliseconds" in (out / "pareto.md").read_text()
    assert {r.kept for r in read_csv(out / "pareto.csv", ParetoRow)} == {0}


def test_a_stop_keeps_what_there_is_and_the_same_call_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "passes", passes)

    class Stop(Callback):
        def on_step(self, updates: int) -> bool:
            return updates < 4

    said: list[str] = []

    def call(*callbacks: Callback) -> Compression:
        sizes, teachers = ["60"], [f"zoo/{n}" for n in NAMES]
        return compress(
            teachers, "out", keep=1, sizes=sizes, recipe="recipe.yaml", callbacks=callbacks, say=said.append
        )

    stopped = call(Stop())
    assert (stopped.finished, stopped.winner, stopped.rows) == (False, None, [])
    assert (place / "out/60pct/checkpoints").is_dir()
    done = call()
    assert (done.finished, done.winner) == (True, "60pct")
    assert len(said) == 3
    assert said[2].startswith("60pct: keeps ")
    info = json.loads((place / "out/60pct/run.json").read_text())
    assert [sitting["command"] for sitting in info["resumed"]] == [f"{info['command']} --resume"]
    # two teachers: their tasks, then the mean over tasks, which is what counts
    assert [(r.size, r.task) for r in done.rows] == [
        (size, task) for size in ("teacher", "60pct") for task in (*NAMES, MEAN)
    ]
    assert np.isnan(done.rows[-1].score)
    assert "Several tasks: the geometric mean over them." in (place / "out/pareto.md").read_text()


@pytest.mark.parametrize("card", [{}, {"scores": {"noop": {"mean": 5.0}}}])
def test_a_teacher_that_scores_nothing_ends_the_search_at_its_first_size(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], card: dict[str, Any]
) -> None:
    """Its card says nothing, or better than it plays. What was found out is kept, and known the next time."""
    write_teacher(place / "zoo/catch", "catch", **card)

    made: list[str] = []
    play, distill = evaluating.evaluate_task, api.distill

    def losing(*arguments: Any, **settings: Any) -> list[Row]:
        return [replace(row, score=row.score - 30) for row in play(*arguments, **settings)]

    def noted(recipe: Any, out: Path, **settings: Any) -> api.Result:
        made.append(out.name)
        return distill(recipe, out, **settings)

    monkeypatch.setattr(evaluating, "evaluate_task", losing)
    monkeypatch.setattr(api, "distill", noted)
    flags = ["compress", *QUICKLY, "70", "90", "--out", "out"]
    for _ in range(2):
        assert typed(monkeypatch, *flags) == 2
        err = capsys.readouterr().err.splitlines()[-1]
        assert err.startswith("polydistill: the teacher of catch (zoo/catch) scored -")
        assert " in 2 games (noop): no share of a score at or below 0" in err
    assert made == ["70pct"]
    assert [r.size for r in read_csv(place / "out/pareto.csv", ParetoRow)] == ["teacher", "70pct"]


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ([], "no teacher to compress"),
        (["zoo/nothing"], "no teacher at zoo/nothing"),
        (["zoo/catch", "--sizes", "net9"], "--sizes net9"),
        (["zoo/catch", "--keep", "0"], "--keep 0: write a percentage above 0, for example 95"),
        (["zoo/catch", "--keep", "-3"], "--keep -3: write"),
        (["zoo/catch", "--keep", "nan"], "--keep nan: write"),
        (["zoo/catch", "--keep", "inf"], "--keep inf: write"),
        (["zoo/catch", "--rule", "best"], "best"),
        (["zoo/catch", "--updates", "0"], "schedule.total_updates"),
        (["zoo/catch", "--recipe", "nope"], "unknown recipe 'nope'"),
        (["zoo/catch", "--sizes", "50", "--out", "recipe.yaml"], "cannot write to --out recipe.yaml"),
        (["zoo/catch", "--sizes", "50", "--out", "mine"], "mine/student is not a student"),
        ([*QUICKLY, "--device", "cude"], "--device cude: not available here"),
        ([*QUICKLY, "--out", "full"], "--out full/50pct is not empty and not a run"),
        ([*QUICKLY, "--set", "memory.capacity=3"], "cannot hold one step of 4 environments"),
        ([*QUICKLY, "--set", "memory.sampler=ranked", "memory.options={alpha: x}"], "alpha"),
        ([*QUICKLY, "--set", "memory.cache_features=true"], "memory.cache_features needs the frozen torso of"),
        ([*QUICKLY, "--set", "evaluation.protocol=starts"], "no starts of catch"),
        (["zoo/logits", *QUICKLY[1:], "--set", "objective.loss=mse"], "loss mse needs Q-values, but the teacher of"),
        (["zoo/poor", *QUICKLY[1:]], "teacher of catch (zoo/poor) scores -3.5 (noop, its card): no share of a score"),
        (["zoo/zero", *QUICKLY[1:]], "teacher of catch (zoo/zero) scores 0.0 (noop, its card): no share of a score"),
        (["zoo/catch-wind", "zoo/poor", *QUICKLY[1:]], "the teacher of catch (zoo/poor) scores -3.5"),
        (
            [*QUICKLY, "--rule", "low", "--set", "evaluation.final_episodes=1"],
            "--rule low needs an interval, which one game has not: give a larger evaluation.final_episodes",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], match: str
) -> None:
    (place / "mine/student").mkdir(parents=True)
    (place / "mine/student/thesis.txt").write_text("precious")
    (place / "full/50pct").mkdir(parents=True)
    (place / "full/50pct/thesis.txt").write_text("precious")
    write_teacher(place / "zoo/logits", "catch", kind="logits")
    write_teacher(place / "zoo/poor", "catch", scores={"noop": {"mean": -3.5}})
    write_teacher(place / "zoo/zero", "catch", scores={"noop": {"mean": 0.0}})
    before = sorted(place.rglob("*"))
    assert typed(monkeypatch, "compress", *flags) == 2
    out, err = capsys.readouterr()
    assert match in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(place.rglob("*")) == before


# What it costs -------------------------------------------------------------------------------------------------------


def test_latency_is_a_median_on_one_thread() -> None:
    task = catch_task("catch")
    seen: list[Any] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def values(obs: np.ndarray) -> np.ndarray:
            seen.append((obs.shape, str(obs.dtype), torch.get_num_threads()))
            time.sleep(0.05 if len(seen) in (11, 12) else 0.004)  # two of seven are slow: a mean would be 17 ms
            return obs

        taken = latency(values, task, 3, forwards=7)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert 4 <= taken < 15
    assert len(seen) == 10 + 7
    assert set(seen) == {((3, *task.obs_shape), task.obs_dtype, 1)}
    assert latency(lambda obs: obs, task, 1, forwards=10**9, seconds=0.01) < 5  # ends in time


def row(size: str, task: str, percent: float, kept: int = 0) -> ParetoRow:
    return ParetoRow(size, task, 2_000, 25.0, 0.5, 1.25, 10, 9.0, 10.0, percent, percent - 1, percent + 1, kept)


def test_the_table_and_the_picture() -> None:
    own = [row("net1", "a", 90.0), row("net1", MEAN, 91.5), row("net2", "a", 80.0, 1), row("net2", MEAN, 81.0, 1)]
    rows = [*teacher_rows(Cost(8_000, 100.0, 1.0, 4.0), own[:2]), *own]
    assert markdown(rows, 81.0, ["A note."]) == (
        "| size | parameters | % of teacher's | ms, batch 1 | ms, batch 32 | a | % of teacher | 95 % interval |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| teacher | 8,000 | 100.0 | 1.00 | 4.00 | 10.0 | 100.0 | – |\n"
        "| net1 | 2,000 | 25.0 | 0.50 | 1.25 | 9.0 | 91.5 | 90.5 to 92.5 |\n"
        "| **net2** | 2,000 | 25.0 | 0.50 | 1.25 | 9.0 | 81.0 | 80.0 to 82.0 |\n"
        "\nBold: the smallest that keeps 81 %. A note.\n"
    )
    plot = picture(rows, 81.0)
    assert plot is not None
    told = "net1 (2,000 parameters) 92 %, net2 (2,000 parameters) 81 %"
    assert f'aria-label="% of teacher by size: {told}"' in plot
    assert picture([row("net1", "a", nan)], 95.0) is None
