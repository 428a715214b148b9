"""``polydistill teach`` from end to end on Catch: checkpoint, resume, best network kept, card, bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from polydistill.algorithms.pqn import PQN
from polydistill.envs.suite import make_env
from polydistill.errors import UserError
from polydistill.evaluation.play import play
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import load_teacher
from polydistill.teaching import make_teaching, recipe_for, teach
from polydistill.training import checkpoint
from polydistill.training import teach as teach_module
from polydistill.training.stopping import Stop
from polydistill.training.teach import Teaching

SMALL: dict[str, Any] = {
    "network.hidden": 32,
    "settings.num_envs": 16,
    "settings.rollout": 8,
    "settings.minibatch": 64,
    "settings.learning_rate": 2e-3,
    "settings.warmup_updates": 20,
    "total_steps": 24_000,
    "evaluation.every": 6_000,
    "evaluation.episodes": 10,
    "evaluation.final_episodes": 20,
}


def quiet(text: str) -> None: ...


def stop_after(monkeypatch: pytest.MonkeyPatch, evaluations: int) -> None:
    """Send this process a SIGINT in the given evaluation."""
    seen: list[float] = []
    evaluate = Teaching._evaluate

    def counted(self: Teaching, stop: Stop) -> float:
        seen.append(evaluate(self, stop))
        if len(seen) == evaluations:
            os.kill(os.getpid(), signal.SIGINT)
        return seen[-1]

    monkeypatch.setattr(Teaching, "_evaluate", counted)


def without_pause(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    """Every report, or every checkpoint, at once: ``seconds`` is the attribute that says how many lie between two."""

    def make(*args: Any, **kwargs: Any) -> Teaching:
        made = make_teaching(*args, **kwargs)
        setattr(made, seconds, 0)
        return made

    monkeypatch.setattr("polydistill.teaching.make_teaching", make)


def test_progress_says_what_share_of_the_game_alone_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pause(monkeypatch, "log_seconds")
    said: list[str] = []
    teach("catch", tmp_path / "t", overrides={**SMALL, "total_steps": 1_000}, say=said.append)
    shares = [re.search(r"control steps \| ([\d,]+)/s, (\d+)% of the game alone \| loss", line) for line in said]
    alone = json.loads((tmp_path / "t" / "run.json").read_text())["emulator_steps_per_s"]  # for those who watch
    rates = [(int(share[1].replace(",", "")), int(share[2])) for share in shares if share]
    assert rates
    assert all(percent == pytest.approx(100 * rate / alone, abs=0.6) for rate, percent in rates)


def test_stop_resume_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "catch"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert not teach("catch", out, overrides=SMALL, say=quiet)
    assert not (out / "teacher.safetensors").exists()
    changed = {**SMALL, "settings.epsilon_end": 0.01}
    assert teach("catch", out, overrides=changed, resume=True, say=quiet)

    steps = [int(r["control_steps"]) for r in csv.DictReader((out / "curve.csv").open()) if r["evaluation"]]
    assert len(steps) == 4
    assert steps == sorted(set(steps))
    card = json.loads((out / "card.json").read_text())
    assert [p["from_control_steps"] for p in card["phases"]] == [0, steps[1]]
    assert [p["settings"].get("epsilon_end") for p in card["phases"]] == [0.05, 0.01]
    assert [(p["seed"], p["started"] <= card["finished"], len(p["commit"])) for p in card["phases"]] == [
        (1, True, 40)
    ] * 2
    assert len(json.loads((out / "run.json").read_text())["sittings"]) == len(card["trained_with"]["sittings"]) == 2
    assert card["control_steps"] >= 24_000
    assert card["scores"]["noop"]["mean"] > card["scores"]["random"] + 3
    assert card["scores"]["noop"]["low"] <= card["scores"]["noop"]["mean"] <= card["scores"]["noop"]["high"]
    teacher = load_teacher(out)
    assert {v.dtype for v in load_file(out / "teacher.safetensors").values()} == {torch.float16}
    env = make_env(teacher.task, 10)
    scores = [e.score for e in play(env, teacher.greedy, episodes=20, epsilon=0.05, seed=1_000_000)]
    assert np.mean(scores) == pytest.approx(card["scores"]["noop"]["mean"])  # the shipped file plays what its card says


def test_a_signal_cuts_an_evaluation_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played, began = teach_module.evaluate_task, list[str]()

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        began.append("played")
        if len(began) == 2:
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it went on")
        return played(*args, **kwargs)

    monkeypatch.setattr(teach_module, "evaluate_task", interrupted)
    out = tmp_path / "catch"
    assert not teach("catch", out, overrides=SMALL, say=quiet)
    rows = list(csv.DictReader((out / "curve.csv").open()))
    stopped = int(rows[-1]["control_steps"])
    assert [bool(r["evaluation"]) for r in rows][-2:] == [True, False]
    assert teach("catch", out, overrides=SMALL, resume=True, say=quiet)
    steps = [int(r["control_steps"]) for r in csv.DictReader((out / "curve.csv").open()) if r["evaluation"]]
    assert len(steps) == 4
    assert stopped < steps[1] < stopped + 3_000  # made up for at once, not at the next one due


def test_every_evaluation_gets_the_threads_and_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hundred games of the final score too."""
    evaluate, move, threads, moved = teach_module.evaluate_task, Teacher.to, list[Any](), list[str]()

    def noted(*args: Any, **kwargs: Any) -> Any:
        threads.append(kwargs.get("threads"))
        return evaluate(*args, **kwargs)

    def told(*args: Any, **kwargs: Any) -> Teaching:
        made = make_teaching(*args, **kwargs)
        made.threads = 3
        return made

    monkeypatch.setattr(teach_module, "evaluate_task", noted)
    monkeypatch.setattr(Teacher, "to", lambda self, device: (moved.append(device), move(self, device))[1])
    monkeypatch.setattr("polydistill.teaching.make_teaching", told)
    assert teach("catch", tmp_path / "t", overrides={**SMALL, "total_steps": 1_000}, device="cpu", say=quiet)
    assert threads == [3, 3, 3]  # during training, the final score, the random policy's
    assert moved == ["cpu"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.filterwarnings("error:no CUDA graph")
def test_teaching_on_a_gpu(tmp_path: Path) -> None:
    """As on a CPU, cut and continued there; the card's score is that of the file."""
    assert teach("catch", tmp_path / "t", overrides=SMALL, device="cuda", say=quiet)
    card = json.loads((tmp_path / "t" / "card.json").read_text())
    assert card["scores"]["noop"]["mean"] > card["scores"]["random"] + 3
    longer = {**SMALL, "total_steps": 30_000}
    assert teach("catch", tmp_path / "t", overrides=longer, device="cuda", resume=True, say=quiet)
    assert teach(
        "catch", tmp_path / "t", overrides={**longer, "total_steps": 36_000}, resume=True, device="cpu", say=quiet
    )


def test_the_best_network_is_kept_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets: list[dict[str, torch.Tensor]] = []
    scores = iter([1.0, 3.0, 2.0, 0.0])

    def scripted(rows: object) -> dict[str, float]:
        return {"catch": next(scores, 0.0)}

    evaluate = Teaching._evaluate

    def recorded(self: Teaching, stop: Stop) -> float:
        nets.append({k: v.clone() for k, v in self.trainer.net.state_dict().items()})
        return evaluate(self, stop)

    monkeypatch.setattr("polydistill.training.teach.mean_scores", scripted)
    monkeypatch.setattr(Teaching, "_evaluate", recorded)
    out = tmp_path / "catch"
    assert teach("catch", out, overrides=SMALL, say=quiet)
    shipped = load_file(out / "teacher.safetensors")
    assert all(torch.equal(shipped[k], v.half()) for k, v in nets[1].items())
    assert not all(torch.equal(shipped[k], v.half()) for k, v in nets[3].items())


@pytest.mark.parametrize(
    ("task", "overrides", "message"),
    [
        ("catsh", {}, "unknown task 'catsh'; did you mean 'catch'?"),
        ("catch", {"settings.num_env": 3}, "unknown key 'num_env'; did you mean 'num_envs'?"),
        ("catch", {"total_step": 3}, "unknown key 'total_step'; did you mean 'total_steps'?"),
        *(
            ("catch", {f"settings.{key}": value}, key)
            for key, value in {
                "num_envs": 0,
                "rollout": 0,
                "minibatch": 0,
                "epochs": 0,
                "gamma": 2,
                "lam": -1,
                "learning_rate": -1,
                "warmup_updates": -1,
                "max_grad_norm": 0,
                "epsilon_end": 2,
                "epsilon_fraction": -1,
                "ez_mu": 1,
                "ez_max": 0,
            }.items()
        ),
    ],
)
def test_bad_input(tmp_path: Path, task: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        teach(task, tmp_path / "t", overrides=overrides, say=quiet)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_warms_up_or_explores_if_that_is_asked_for(tmp_path: Path) -> None:
    short = {**SMALL, "total_steps": 1_000, "settings.warmup_updates": 0, "settings.epsilon_fraction": 0}
    assert teach("catch", tmp_path / "t", overrides=short, say=quiet)


def test_a_full_disk_is_said_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, said = checkpoint.save_file, list[str]()
    fails = iter([OSError(28, "No space left on device"), SafetensorError("IoError: No space left on device")])

    def full(*args: Any) -> None:
        if error := next(fails, None):
            raise error
        saved(*args)

    monkeypatch.setattr(checkpoint, "save_file", full)
    without_pause(monkeypatch, "checkpoint_seconds")
    assert teach("catch", tmp_path / "t", overrides={**SMALL, "total_steps": 2_000}, say=said.append)
    told = [line for line in said if "cannot write a checkpoint" in line]
    assert len(told) == 2
    assert "No space left on device" in told[1]


def test_a_curve_that_cannot_be_written_is_said_and_training_goes_on(tmp_path: Path) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "after 6" in text:  # the first evaluation; its row comes next
            (tmp_path / "t" / "curve.csv").unlink(missing_ok=True)
            (tmp_path / "t" / "curve.csv").symlink_to("/dev/full")
        elif "after 12" in text:
            (tmp_path / "t" / "curve.csv").unlink()

    assert teach("catch", tmp_path / "t", overrides={**SMALL, "total_steps": 18_000}, say=say)
    told = [line for line in said if "curve.csv (No space left on device): training goes on" in line]
    assert len(told) == 1
    with (tmp_path / "t" / "curve.csv").open() as file:
        assert [row["control_steps"][:2] for row in csv.DictReader(file) if row["evaluation"]] == ["12", "18"]


@pytest.mark.parametrize("seed", [-1, 100_000])
def test_seeds_of_evaluations_are_not_for_training(tmp_path: Path, seed: int) -> None:
    with pytest.raises(UserError, match=f"--seed {seed}: choose one from 0 to 99,999"):
        teach("catch", tmp_path / "t", overrides=SMALL, seed=seed, say=quiet)
    assert not (tmp_path / "t").exists()


def test_a_loss_that_is_no_number_ends_it_before_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = PQN._learn
    monkeypatch.setattr(PQN, "_learn", lambda *args: {**learn(*args), "loss": float("nan")})
    with pytest.raises(UserError, match="the loss is nan after 128 control steps"):
        teach("catch", tmp_path / "t", overrides=SMALL, say=quiet)
    assert not (tmp_path / "t" / "checkpoint").exists()


def test_a_dqn_that_fills_its_memory_again_is_not_one_without_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {
        "network.hidden": 32,
        "settings.capacity": 5_000,
        "settings.learning_starts": 2_500,  # more than lie between two reports
        "total_steps": 5_000,
        "evaluation.every": 4_000,
        "evaluation.episodes": 2,
        "evaluation.final_episodes": 2,
    }
    said: list[str] = []

    without_pause(monkeypatch, "log_seconds")
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        assert not teach("catch", tmp_path / "t", recipe="nature", overrides=small, say=quiet)
    assert teach("catch", tmp_path / "t", recipe="nature", overrides=small, resume=True, say=said.append)
    filling = [line for line in said if " 4,000/5,000 " in line]
    assert len(filling) == 2  # after 1,000 and 2,000 of 2,500
    assert all("| fills its memory |" in line for line in filling)
    assert any("5,000 control steps: " in line for line in said)


def test_the_nature_recipe_sees_pixels_as_in_the_article(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Teaching, "drive", lambda self: not seen.append(self.task.obs_profile))
    for recipe in ("nature", "fast"):
        copies = {"settings.num_envs": 1} | ({"settings.capacity": 1_000} if recipe == "nature" else {})
        assert teach("pong", tmp_path / recipe, recipe=recipe, overrides=copies, say=quiet)
        assert json.loads((tmp_path / recipe / "run.json").read_text())["task"]["obs_profile"] == seen[-1]
    assert seen == ["nature", "ale"]


def test_another_network_is_not_a_resumed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 1)
    assert not teach("catch", tmp_path / "t", overrides=SMALL, say=quiet)
    with pytest.raises(UserError, match=r"network.hidden is 48, but the run in .* has 32"):
        teach("catch", tmp_path / "t", overrides={**SMALL, "network.hidden": 48}, resume=True, say=quiet)


def test_per_task_settings_are_overridden_by_the_command_line() -> None:
    assert recipe_for("fast", "freeway", {}).settings["advantage"] == 0.8
    assert "advantage" not in recipe_for("fast", "breakout", {}).settings
    assert recipe_for("fast", "freeway", {"settings.advantage": 0.5}).settings["advantage"] == 0.5


def test_training_starts_from_a_teacher(tmp_path: Path) -> None:
    short = {**SMALL, "total_steps": 128, "evaluation.episodes": 2}
    assert teach("catch", tmp_path / "first", overrides={**SMALL, "total_steps": 6_000}, say=quiet)
    still = {**short, "settings.learning_rate": 1e-12}
    assert teach("catch", tmp_path / "second", overrides=still, start=tmp_path / "first", say=quiet)
    first, second = (load_file(tmp_path / name / "teacher.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[k], second[k]) for k in first)
    card = json.loads((tmp_path / "second" / "card.json").read_text())
    assert card["phases"][-1]["started_from"] == str(tmp_path / "first")
    with pytest.raises(UserError, match="a teacher of catch, not of catch-wide"):
        teach("catch-wide", tmp_path / "x", overrides=short, start=tmp_path / "first", say=quiet)
    with pytest.raises(UserError, match=r"hidden.weight: expected \(16, 64\), found \(32, 64\)"):
        teach("catch", tmp_path / "x", overrides={**short, "network.hidden": 16}, start=tmp_path / "first", say=quiet)
    assert not (tmp_path / "x").exists()
