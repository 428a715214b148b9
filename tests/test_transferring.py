"""``polydistill transfer`` from end to end on Catch, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from polydistill import api, nets, transferring
from polydistill.envs.suite import resolve_task
from polydistill.evaluation.curves import CurvePoint
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.tables import Result
from polydistill.experiments import load_experiment, plan_runs
from polydistill.nets.store import save_student
from polydistill.policies import load
from polydistill.reporting import page
from polydistill.tasks import Suite
from polydistill.teachers.sources import open_source
from polydistill.training.stopping import Stop
from polydistill.training.teach import Teaching, evaluations
from polydistill.transferring import TransferRecipe, transfer_recipe
from tests.command_line import children_here, typed
from tests.distilling import parts_of, small, write_teacher

QUICK: dict[str, Any] = {
    "settings.num_envs": 8, "settings.rollout": 8, "settings.minibatch": 32, "settings.learning_rate": 2e-3,
    "settings.warmup_updates": 5, "total_steps": 640, "evaluation.every": 320, "evaluation.episodes": 2,
    "evaluation.final_episodes": 4,
}  # fmt: skip


def quiet(text: str) -> None: ...


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with teachers, and a student of catch-wind and catch-mirror as a run would leave it."""
    for name in ("catch", "catch-wind"):
        write_teacher(tmp_path / "zoo" / name, name)
    parts = parts_of(small())
    (tmp_path / "amn").mkdir()
    save_student(tmp_path / "amn", parts.student, "mimic")
    (tmp_path / "amn" / "recipe.yaml").write_text(yaml.safe_dump(parts.recipe.model_dump(mode="json")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(name: str = "fast", /, **changes: Any) -> TransferRecipe:
    return transfer_recipe(name, "catch", {**QUICK, **changes})


def transfer(chosen: TransferRecipe, out: str, **options: Any) -> Path:
    assert transferring.transfer(chosen, out, say=quiet, **options)
    return Path(out)


def test_a_run_has_the_files_of_a_finished_one(place: Path) -> None:
    out = transfer(recipe(source="amn", against="zoo/catch"), "out", command="typed")
    about = json.loads((out / "run.json").read_text())
    assert about["finished"]
    assert about["command"] == "typed"
    assert about["student"]["kind"] == "mimic"
    assert about["transfer"]["hand_over"]["value_scale"] is None
    points = evaluations(out / "curve.csv")
    assert [p[0] for p in points] == [0, 320, 640]
    assert points[0][1] == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["tasks"]["catch"]["score"] for line in lines] == [p[2] for p in points]
    summary = json.loads((out / "summary.json").read_text())["tasks"]["catch"]
    card = json.loads((out / "card.json").read_text())
    assert summary["score"] == pytest.approx(card["scores"]["noop"]["mean"])
    assert summary["teacher"] is not None
    assert card["transfer"] == {"init": "source", "source": "amn", "hand_over": about["transfer"]["hand_over"]}
    assert load(out).suite.tasks[0].name == "catch"  # a teacher as any other, and so a source
    assert open_source(out).network_for(load(out).suite.tasks[0], "keep18").new == ()


def test_nothing_is_lost_between_source_and_first_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights at step 0 are the source's, outputs times the temperature; the target network is their copy."""
    seen: dict[str, Any] = {}
    train = Teaching._train

    def look(self: Teaching) -> bool:
        seen["net"] = {k: v.clone() for k, v in self.trainer.net.state_dict().items()}
        seen["target"] = {k: v.clone() for k, v in self.trainer.target.state_dict().items()}  # type: ignore[attr-defined]
        seen["optimizer"] = dict(self.trainer.optimizer.state)  # type: ignore[attr-defined]
        return train(self)

    monkeypatch.setattr(Teaching, "_train", look)
    dqn = {"settings.learning_starts": 64, "settings.capacity": 1000, "total_steps": 128, "evaluation.every": 128}
    own = {k: v for k, v in QUICK.items() if not k.startswith("settings.")}
    chosen = transfer_recipe("nature", "catch", {**own, **dqn, "source": "amn"})
    monkeypatch.setattr("polydistill.algorithms.dqn.DQN.report_every", 32)
    transfer(chosen, "out")
    theirs = load_file("amn/student.safetensors")
    for name, tensor in theirs.items():
        factor = 0.01 if name.startswith("output.") else 1.0  # small()'s temperature
        assert torch.equal(seen["net"][f"student.{name}"], factor * tensor)
    assert all(torch.equal(v, seen["target"][k]) for k, v in seen["net"].items())
    assert seen["optimizer"] == {}


def test_the_warm_up_keeps_the_body(place: Path) -> None:
    def body(out: str, updates: int) -> list[bool]:
        chosen = recipe(source="amn", **{"hand_over.warmup_updates": updates, "evaluation.every": 640})
        transfer(chosen, out)
        theirs, ours = (
            load_file("amn/student.safetensors"),
            load_file(max(Path(out).glob("checkpoint/*/net.safetensors"))),
        )
        return [torch.equal(theirs[k], ours[f"student.{k}"]) for k in theirs if not k.startswith("output.")]

    assert all(body("long", 10**6))
    assert not any(body("none", 0))


def test_what_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parallel Q-learning without normalisation is warned of; rows that no source game trained are named."""
    monkeypatch.setattr(Teaching, "drive", lambda self: False)
    atari = [resolve_task(name) for name in ("freeway", "pong")]
    for norm in (False, True):
        for name, suite in (("freeway", atari[:1]), ("both", atari)):
            student = nets.make("mimic", Suite(tuple(suite)), channels=[4, 4, 4], hidden=8, norm=norm)
            (folder := place / f"{name}-{norm}").mkdir()
            save_student(folder, student, "mimic")

    def told(*chosen: str, **changes: Any) -> list[str]:
        said: list[str] = []
        settings = {k: v for k, v in QUICK.items() if k != "settings.rollout"}
        settings = settings if chosen[0] == "fast" else {"settings.capacity": 1_000, "settings.learning_starts": 64}
        made = transfer_recipe(*chosen, {**settings, "threads": 1, **changes})
        assert not transferring.transfer(made, "out", overwrite=True, say=said.append)
        return said

    kept, warned = told("fast", "breakout", source="freeway-False")
    assert kept.endswith("kept and multiplied by 1; FIRE, RIGHT, LEFT as first drawn: no source task has them")
    assert warned.startswith("breakout: warning: parallel Q-learning needs layer normalisation")
    assert "\n" not in warned
    assert told("nature", "breakout", source="both-False")[1:] == []
    (kept,) = told("fast", "breakout", source="both-True")
    assert kept.endswith("outputs kept and multiplied by 1")
    assert len(told("fast", "breakout", source="freeway-True", **{"hand_over.head": "reinit"})) == 1
    (kept,) = told("fast", "catch")  # the recipe's own network is normalised
    assert kept == "catch: random weights"
    assert len(told("fast", "catch", **{"network.norm": False})) == 2


def test_random_weights_in_the_same_network(place: Path) -> None:
    ours, same, other = (
        load_file(transfer(recipe(source="amn", init="random", seed=s, **{"settings.learning_rate": 1e-12}), out)
        / "teacher.safetensors") for s, out in ((1, "a"), (1, "b"), (2, "c"))
    )  # fmt: skip
    theirs = load_file("amn/student.safetensors")
    assert {f"student.{k}": v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}
    assert not any(torch.equal(v.half(), ours[f"student.{k}"]) for k, v in theirs.items())
    assert all(torch.equal(v, same[k]) for k, v in ours.items())
    assert not any(torch.equal(v, other[k]) for k, v in ours.items())
    own = json.loads((transfer(recipe(**{"network.hidden": 16}), "d") / "card.json").read_text())["network"]
    assert (own["hidden"], own["body"]) == (16, None)  # without a source: the recipe's network


def test_stop_and_resume(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, seen = Teaching._evaluate, []

    def counted(self: Teaching, stop: Stop) -> float:
        seen.append(self.trainer.steps)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, stop)

    monkeypatch.setattr(Teaching, "_evaluate", counted)
    assert not transferring.transfer(recipe(source="amn"), "out", say=quiet)
    assert json.loads(Path("out/run.json").read_text())["finished"] is None
    transfer(recipe(source="amn"), "out", resume=True)
    assert seen == [0, 320, 640]
    assert [p[0] for p in evaluations(Path("out/curve.csv"))] == [0, 320, 640]
    assert len(Path("out/metrics.jsonl").read_text().splitlines()) == 3


def test_the_verb_and_kickstarting(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [f"{k}={v}" for k, v in QUICK.items() if k != "total_steps"]
    kick = ["--kickstart", "zoo/catch", "--kickstart-weight", "2", "--kickstart-steps", "300"]
    arguments = ["transfer", "amn", "--task", "catch", "--steps", "640", "--head", "reinit", "--out", "out", *kick]
    assert typed(monkeypatch, *arguments, "--set", *flags) == 0
    saved = yaml.safe_load(Path("out/recipe.yaml").read_text())
    assert saved["kickstart"] == {
        "teacher": "zoo/catch", "weight": 2.0, "steps": 300, "temperature": 0.01, "learner_temperature": 0.01,
        "rl_start": 1.0,
    }  # fmt: skip
    assert saved["hand_over"]["head"] == "reinit"
    taught = ["teach", "--task", "catch", "--steps", "640", "--out", "taught", *kick, "--set", *flags]
    assert typed(monkeypatch, *taught) == 0
    assert json.loads(Path("taught/card.json").read_text())["settings"]["kickstart"]["steps"] == 300
    capped = ["sources", "--target", "zoo/catch", "--sources", "zoo/catch-wind", "out", "--observations", "200"]
    assert typed(monkeypatch, *capped) == 0


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        ("no such initialisation; did you mean 'amn-policy'?", ["amn", "--task", "catch", "--init", "amn-polic"]),
        ("--init amn-policy needs a SOURCE", ["--task", "catch", "--init", "amn-policy"]),
        ("without feature regression; use --init amn-policy", ["amn", "--task", "catch", "--init", "amn-feature"]),
        ("zoo/catch is no distillation", ["zoo/catch", "--task", "catch", "--init", "amn-policy"]),
        ("expects uint8 (1, 10, 5), found uint8 (1, 10, 8)", ["amn", "--task", "catch-wide"]),
        ("cut has no student yet", ["cut", "--task", "catch"]),
        ("no policy at nowhere", ["nowhere", "--task", "catch"]),
        ("unknown task 'catsh'", ["amn", "--task", "catsh"]),
        ("--task is missing", ["amn"]),
        ("hand_over.head: Input should be 'keep18' or 'reinit'", ["amn", "--task", "catch", "--head", "keep"]),
        ("a teacher of catch-wind, not of catch", ["amn", "--task", "catch", "--against", "zoo/catch-wind"]),
        ("network: it is the source's", ["amn", "--task", "catch", "--set", "network.hidden=3"]),
        ("--out out is out, which the run reads", ["out", "--task", "catch", "--overwrite"]),
        ("unknown key 'hand_over.warmup'", ["amn", "--task", "catch", "--set", "hand_over.warmup=3"]),
        ("has no output for NOOP", ["amn", "--task", "catch", "--kickstart", "zoo/catch-wind"]),
        ("kickstart: 'teacher' is missing", ["amn", "--task", "catch", "--kickstart-steps", "3"]),
        ("recurrent holds Distral's policies, which are recurrent", ["recurrent", "--task", "catch"]),
        ("recurrent holds Distral's policies", ["amn", "--task", "catch", "--kickstart", "recurrent"]),
    ],
)
def test_refused_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], match: str, arguments: list[str]
) -> None:
    (place / "cut").mkdir()
    (place / "cut" / "run.json").write_text('{"command": "", "versions": {}}')
    (place / "recurrent").mkdir()
    (place / "recurrent" / "policies.json").write_text("{}")
    assert typed(monkeypatch, "transfer", *arguments, "--out", "out") == 2
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1
    assert not Path("out").exists()


def atari_student(folder: Path, **profiles: str) -> None:
    tasks = [resolve_task(name, profile=profile) for name, profile in profiles.items()]
    folder.mkdir()
    save_student(folder, nets.make("mimic", Suite(tuple(tasks)), channels=[4, 4, 4], hidden=8, norm=True), "mimic")


def test_pixels_are_the_sources(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless they are named, and whatever the recipe says, which is about random weights alone."""
    atari_student(place / "nature", pong="nature")
    atari_student(place / "both", pong="ale", freeway="nature")

    def profile(*name: str, **changes: Any) -> str:
        made = transfer_recipe(*name, changes)
        return transferring._target(made, open_source(made.source) if made.source else None)[0].obs_profile

    assert profile("fast", "breakout", source="nature") == "nature"
    assert profile("fast", "breakout", source="nature", init="random") == "nature"
    assert profile("fast", "breakout", source="nature", profile="nature") == "nature"
    assert profile("nature", "pong", source="both") == "ale"
    assert profile("fast", "breakout", source="both", profile="nature") == "nature"
    assert profile("fast", "breakout", source="both", **{"hand_over.like": "freeway"}) == "nature"
    assert [profile(name, "breakout") for name in ("fast", "nature")] == ["ale", "nature"]
    assert profile("fast", "breakout", profile="nature") == "nature"


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        ("profile nature: ale has seen other pixels (pong ale)", ["transfer", "ale", "--set", "profile=nature"]),
        ("ale has seen other pixels", ["transfer", "ale", "--init", "random", "--set", "profile=nature"]),
        ("both has seen two kinds of pixels (pong ale, freeway nature): choose", ["transfer", "both"]),
        ("observations differ: ale expects uint8 (4, 84, 84) with ale", ["teach", "--recipe", "nature"]),
        ("with ale pixels, found uint8 (4, 84, 84) with nature pixels in break", ["transfer", "nature"]),
    ],
)
def test_other_pixels_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], match: str, arguments: list[str]
) -> None:
    for name, profiles in (("ale", {"pong": "ale"}), ("nature", {"pong": "nature"})):
        atari_student(place / name, **profiles)
    atari_student(place / "both", pong="ale", freeway="nature")
    help_ = ["--kickstart", "ale"]
    assert typed(monkeypatch, *arguments, "--task", "breakout", "--out", "out", *help_) == 2
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1
    assert not Path("out").exists()


def test_an_experiment_makes_its_sources_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources without the game, then three initialisations on it; tables and the figure."""
    monkeypatch.setattr(api, "_inspect", lambda *_: None)
    monkeypatch.setattr(page, "write_report", lambda folder: folder)

    children_here(monkeypatch)
    base = {"teachers": ["zoo/catch-wind"], **small(schedule={"total_updates": 5}, evaluation={"every": 5})}
    Path("recipe.yaml").write_text(yaml.safe_dump(base))
    short = {"kind": "transfer", "recipe": "fast", **QUICK}
    content = {
        "recipe": "recipe.yaml",
        "variants": {
            "source-policy": {},
            "source-feature": {"objective.features": {"beta": 0.01}},
            "AMN-policy": {**short, "source": "source-policy", "init": "amn-policy"},
            "AMN-feature": {**short, "source": "source-feature", "init": "amn-feature", "hand_over.head": "reinit"},
            "random": {**short, "source": "source-policy", "init": "random"},
        },
        "teachers": [["zoo/catch-wind"]],
        "left_out": "zoo/catch",
        "seeds": [2],
        "paper_curves": {"source": "A paper", "millions": [1], "scores": {"random": [1.182]}},
    }
    Path("move.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert typed(monkeypatch, "experiment", "move.yaml") == 0
    results = Path("results/move")
    rows = read_csv(results / "scores.csv", Result)
    assert [(r.variant, r.task) for r in rows] == [
        ("source-policy", "catch-wind"), ("source-feature", "catch-wind"),
        ("AMN-policy", "catch"), ("AMN-feature", "catch"), ("random", "catch"),
    ]  # fmt: skip
    points = read_csv(results / "curves.csv", CurvePoint)
    assert {p.control_steps for p in points if p.variant == "random"} == {0, 320, 640}
    text = (results / "README.md").read_text()
    assert "| catch, control steps | 0 | 320 | 640 |" in text
    assert "| | jump-start | mean score | transfer ratio | steps to" in text.replace("|  |", "| |")
    assert "| random | 1.2 |" in text
    assert "(transfer.svg)" in text
    assert (results / "transfer.svg").is_file()
    assert not (results / "curves.svg").exists()  # sources and targets are other tasks
    assert "curves.svg" not in text
    assert "one bar per task and variant; of a transfer, the network with its best evaluation](percent.svg)" in text
    _, experiment = load_experiment("move.yaml")
    planned = plan_runs(experiment, Path("runs/move"))
    assert {run.state() for run in planned} == {"finished"}
    assert "runs/move/source-feature-catch-wind-s2 --task catch" in planned[3].command


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"left_out": None}, "variants.b: a transfer needs left_out and one group of teachers"),
        ({"variants": {"a": {}, "b": {"kind": "transfer", "source": "c"}}}, "variants.b.source: no variant 'c'"),
        (
            {"variants": {"a": {}, "b": {"kind": "transfer", "recipe": "fast", "source": "a", "init": "amn-feature"}}},
            "variants.b: --init amn-feature: a is distilled without feature regression; use --init amn-policy",
        ),
        (
            {"overrides": {"objective.features": {"beta": 0.1}}},
            "variants.b: --init amn-policy: a is distilled with feature regression; use --init amn-feature",
        ),
        (
            {
                "variants": {
                    "a": {"kind": "multitask", "recipe": "small"},
                    "b": {"kind": "transfer", "recipe": "fast", "source": "a", "init": "amn-policy"},
                }
            },
            "variants.b: --init amn-policy: a is no distillation; use --init source",
        ),
        (
            {"paper_curves": {"source": "x", "millions": [1], "scores": {"bb": [1.0]}}},
            "paper_curves.scores: no variant 'bb'; did you mean 'b'?",
        ),
        (
            {"paper_curves": {"source": "x", "millions": [1, 2], "scores": {"b": [1.0]}}},
            "scores.b: 1 numbers for 2 of millions",
        ),
        ({"left_out": "zoo/catch-wind"}, "catch-wind is named twice"),
        ({"left_out": "zoo/nothing"}, "no teacher at zoo/nothing"),
    ],
)
def test_mistakes_in_an_experiment(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    match: str,
) -> None:
    content: dict[str, Any] = {
        "recipe": "default", "left_out": "zoo/catch", "teachers": [["zoo/catch-wind"]],
        "variants": {"a": {}, "b": {"kind": "transfer", "recipe": "fast", "source": "a", "init": "amn-policy"}},
    }  # fmt: skip
    Path("x.yaml").write_text(yaml.safe_dump({**content, **changes}))
    assert typed(monkeypatch, "experiment", "x.yaml", "--dry-run") == 2
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1
