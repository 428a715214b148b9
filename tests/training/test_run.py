"""A whole run: its logs, its checkpoints, stopping and going on."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from polydistill import build
from polydistill.devices import device_of
from polydistill.errors import UserError
from polydistill.recipe import DistillRecipe, require_same
from polydistill.training import checkpoint
from polydistill.training.callbacks import Callback, Record
from polydistill.training.folder import RunFolder
from polydistill.training.run import Run
from polydistill.training.watched import CHECKPOINTS, METRICS
from tests.distilling import NAMES, fitted_teacher, parts_of, small, write_teacher

TIMING = {"seconds", "updates_per_s", "control_steps_per_s"}


class Watcher(Callback):
    """Keeps every event, and stops the run after ``last`` updates."""

    def __init__(self, last: int = 10**9):
        self.last = last
        self.events: list[str] = []
        self.messages: list[str] = []

    def on_start(self, total_updates: int, tasks: list[str]) -> None:
        self.events.append(f"start {total_updates} {' '.join(tasks)}")

    def on_step(self, updates: int) -> bool | None:
        return False if updates >= self.last else None

    def on_log(self, record: Record) -> None:
        self.events.append("log")

    def on_evaluation(self, record: Record) -> None:
        self.events.append(f"evaluation {record['updates']}")

    def on_checkpoint(self, path: Path) -> None:
        self.events.append(f"checkpoint {int(path.name)}")

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_end(self) -> None:
        self.events.append("end")


@contextmanager
def run_of(
    path: Path, *callbacks: Callback, resume: bool = False, recipe: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Run]:
    parts = parts_of(recipe or small("task_torsos", schedule={"warmup": 40, "total_updates": 24}))
    actors = build.actors(parts)
    folder = RunFolder(path, resume=resume)
    folder.write_json("run.json", {"command": "test", "versions": {}})
    made: dict[str, Any] = {
        "evaluate": lambda updates: {n: {"score": 1.0} for n in NAMES},
        "log_seconds": 0.0,
    } | settings
    run = Run(
        folder=folder,
        actors=actors,
        learner=build.learner(parts),
        rectangle=build.rectangle(parts, actors),
        schedule=parts.recipe.schedule,
        rng=build.sampler_stream(parts.recipe),
        callbacks=callbacks,
        **made,
    )
    try:
        yield run
    finally:
        folder.close()


def records(path: Path, kind: str = "train") -> list[Record]:
    lines = (path / METRICS).read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def saved(path: Path) -> list[int]:
    return sorted(int(p.name) for p in (path / CHECKPOINTS).iterdir())


def test_a_run_logs_evaluates_and_saves(tmp_path: Path) -> None:
    watcher = Watcher()
    with run_of(tmp_path / "x", watcher, evaluate_every=10, checkpoint_seconds=0.0) as run:
        assert run.drive()
        assert run.drive()  # there is nothing left to do
    assert watcher.events[0] == "start 24 catch catch-wind"
    assert watcher.events[-1] == "end"
    assert watcher.events.count("log") == 24
    assert [e for e in watcher.events if e.startswith("evaluation")] == ["evaluation 10", "evaluation 20"]
    assert [e for e in watcher.events if e.startswith("checkpoint")] == [f"checkpoint {i}" for i in range(1, 25)]
    assert saved(tmp_path / "x") == [23, 24]
    rows = records(tmp_path / "x")
    assert [r["updates"] for r in rows] == list(range(1, 25))
    assert [r["updates"] for r in records(tmp_path / "x", "eval")] == [10, 20]
    last = rows[-1]
    assert last["control_steps"] == 2 * (40 + 24 * 4)
    assert last["skipped"] == 0
    assert last["lr"] == 3e-3
    assert last["tasks"].keys() == set(NAMES)
    assert last["tasks"]["catch"].keys() == {
        "loss", "kl", "agreement", "return", "memory", "memory_bytes", "epsilon"
    }  # fmt: skip
    assert last["tasks"]["catch"]["memory"] == 136
    assert last["loss"] == pytest.approx(np.mean([t["loss"] for t in last["tasks"].values()]))


def test_equal_seeds_write_equal_logs_and_checkpoints(tmp_path: Path) -> None:
    for name in "ab":
        with run_of(tmp_path / name) as run:
            run.drive()
    one, two = ([{k: v for k, v in r.items() if k not in TIMING} for r in records(tmp_path / n)] for n in "ab")
    assert one == two
    first, second = (checkpoint.latest(tmp_path / n / CHECKPOINTS) for n in "ab")
    assert first is not None
    assert second is not None
    for part, named in first.tensors.items():
        assert all(torch.equal(v, second.tensors[part][k]) for k, v in named.items())
    with run_of(
        tmp_path / "c", recipe=small("task_torsos", seed=2, schedule={"warmup": 40, "total_updates": 24})
    ) as run:
        run.drive()
    assert [r["loss"] for r in records(tmp_path / "c")] != [r["loss"] for r in one]


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with run_of(path, Watcher(last=9), evaluate_every=7) as run:
        assert not run.drive()
        weights = {k: v.clone() for k, v in run.learner.student.state_dict().items()}
        drawn = run.rng.bit_generator.state
        steps = [a.control_steps for a in run.actors]
    assert saved(path) == [9]
    with (path / METRICS).open("a") as file:  # it had gone on for two updates before it was killed
        file.write('{"kind": "train", "updates": 10}\n{"kind": "train", "upda')
    with run_of(path, resume=True, evaluate_every=7) as run:
        assert run.resume()
        assert run.learner.updates == 9
        assert all(torch.equal(weights[k], v) for k, v in run.learner.student.state_dict().items())
        assert run.learner.optimizer.state_dict()["state"]
        assert run.rng.bit_generator.state == drawn
        assert [a.control_steps for a in run.actors] == steps
        assert [r["updates"] for r in records(path)] == list(range(1, 10))
        assert run.drive()
    rows = records(path)
    assert [r["updates"] for r in rows] == list(range(1, 25))
    assert [r["updates"] for r in records(path, "eval")] == [7, 14, 21]
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(rows))
    assert all(a["control_steps"] < b["control_steps"] for a, b in pairwise(rows))


def counts(path: Path) -> list[tuple[int, int]]:
    return [(r["updates"], r["control_steps"]) for r in records(path)]


@pytest.mark.parametrize(
    ("games", "schedule"),
    [
        ("joint", {"warmup": 1, "collect": 24, "updates": 10}),  # Rusu's, small
        ("random", {"warmup": 1, "collect": 24, "updates": 10}),
        ("round_robin_episode", {"warmup": 1, "collect": 24, "updates": 10}),
        ("joint", {"warmup": 40, "collect": 4, "updates": 1}),  # Yin and Pan's
        ("joint", {"warmup": 8, "collect": 6, "updates": 5}),
    ],
)
def test_a_cut_leaves_no_trace_in_the_schedule(tmp_path: Path, games: str, schedule: dict[str, Any]) -> None:
    recipe = small("controllers", schedule={**schedule, "games": games, "total_updates": 26})
    with run_of(tmp_path / "whole", recipe=recipe) as run:
        assert run.drive()
        assert run.refilled == 0
        turns = [a.control_steps for a in run.actors]
    assert len(counts(tmp_path / "whole")) == 26
    path = tmp_path / "cut"
    with run_of(path, Watcher(last=3), recipe=recipe) as run:  # within a round's updates
        assert not run.drive()
    with run_of(path, resume=True, recipe=recipe) as run:  # within a round's control steps, where there are many
        assert run.resume()
        interrupting(run.actors[0].env, 7)
        run.drive()
    with run_of(path, Watcher(last=20), resume=True, recipe=recipe) as run:
        assert run.resume()
        run.drive()
    with run_of(path, resume=True, recipe=recipe) as run:
        assert run.resume()
        held = [a.control_steps for a in run.actors]
        before = [a.refilled for a in run.actors]
        assert run.drive()
        if games != "round_robin_episode":  # there the games' episodes begin anew
            assert [a.control_steps for a in run.actors] == turns
        longest = max(schedule["collect"], schedule["warmup"])
        copies = run.actors[0].env.num_envs
        wanted = [-(-min(longest, h) // copies) * copies for h in held]
        assert [a.refilled - b for a, b in zip(run.actors, before, strict=True)] == wanted
        assert all(before)
    assert counts(path) == counts(tmp_path / "whole")


def test_a_cut_between_two_control_steps_of_a_round_leaves_no_trace(tmp_path: Path) -> None:
    for games in ("joint", "random"):
        recipe = small("controllers", schedule={"warmup": 8, "collect": 40, "games": games, "total_updates": 9})
        with run_of(tmp_path / games, recipe=recipe) as run:
            run.drive()
        path = tmp_path / f"{games}-cut"
        with run_of(path, recipe=recipe) as run:
            interrupting(run.actors[0].env, 5)
            assert not run.drive()
            assert run.learner.updates == 0
            steps = run.control_steps
        with run_of(path, resume=True, recipe=recipe) as run:  # cut again, while the memory fills
            assert run.resume()
            interrupting(run.actors[0].env, 2)
            assert not run.drive()
            assert (run.control_steps, run.refilled) == (steps, 2 * 4 * 2)
        with run_of(path, resume=True, recipe=recipe) as run:
            assert run.resume()
            assert run.drive()
        assert counts(path) == counts(tmp_path / games)


def test_the_memory_is_full_again_before_the_first_update(tmp_path: Path) -> None:
    schedule = {"warmup": 40, "collect": 4, "total_updates": 24}
    held = {}
    for capacity in (400, 30):
        recipe, path = small(memory={"capacity": capacity}, schedule=schedule), tmp_path / str(capacity)
        with run_of(path, Watcher(last=9), recipe=recipe) as run:
            run.drive()
        with run_of(path, Watcher(last=10), resume=True, recipe=recipe) as run:
            assert run.resume()
            run.drive()
            held[capacity] = [(a.refilled, len(a.memory)) for a in run.actors]
    assert held == {400: [(40, 40 + 4)] * 2, 30: [(32, 30)] * 2}  # of the 76 that there were; then one round


def test_an_older_checkpoint_without_the_schedules_place_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, really = tmp_path / "x", checkpoint.save
    with monkeypatch.context() as patch, run_of(path, Watcher(last=9)) as run:
        new = ("progress", "task_refilled")
        patch.setattr(checkpoint, "save", lambda *x: really(*x[:3], {k: v for k, v in x[3].items() if k not in new}))
        run.drive()
    with run_of(path, resume=True) as run:
        assert run.resume()
        assert run.drive()
    assert [r["updates"] for r in records(path)] == list(range(1, 25))
    assert records(path)[-1]["control_steps"] == 2 * (40 + 24 * 4)


def test_a_damaged_checkpoint_costs_only_the_way_back_to_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with run_of(path, Watcher(last=9), checkpoint_seconds=0.0) as run:
        run.drive()
    assert saved(path) == [8, 9]
    broken = path / CHECKPOINTS / "0000000009" / "student.safetensors"
    broken.write_bytes(broken.read_bytes()[:-10])
    with run_of(path, resume=True, checkpoint_seconds=0.0) as run:
        assert run.resume()
        assert run.learner.updates == 8
        run.drive()
    assert [r["updates"] for r in records(path)] == list(range(1, 25))


def test_a_run_killed_before_its_first_checkpoint_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with run_of(path) as run:
        run.folder.append(METRICS, {"kind": "train", "updates": 1})
    with run_of(path, resume=True) as run:
        assert not run.resume()
        run.drive()
    assert [r["updates"] for r in records(path)] == list(range(1, 25))


def test_a_teacher_that_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with run_of(path, Watcher(last=3)) as run:
        run.drive()
    with run_of(path, resume=True) as run:
        with torch.no_grad():
            next(p for p in run.learner.student.parameters() if not p.requires_grad)[0] += 1
        with pytest.raises(UserError, match="a teacher has changed since this run began"):
            run.resume()


def interrupting(env: Any, at: int) -> None:
    real, calls = env.step, []

    def step(actions: np.ndarray) -> Any:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return real(actions)

    env.step = step


@pytest.mark.parametrize(("at", "updates"), [(3, 0), (25, 15)], ids=["while the memories fill", "later"])
def test_ctrl_c_stops_at_the_next_step_with_a_checkpoint(tmp_path: Path, at: int, updates: int) -> None:
    handler, watcher = signal.getsignal(signal.SIGINT), Watcher()
    with run_of(tmp_path / "x", watcher) as run:
        interrupting(run.actors[0].env, at)
        assert not run.drive()
        assert run.learner.updates == updates
        assert run.actors[0].control_steps == run.actors[1].control_steps == at * 4
    assert signal.getsignal(signal.SIGINT) is handler
    assert saved(tmp_path / "x") == [run.learner.updates]
    assert watcher.events[-1] == "end"
    with run_of(tmp_path / "x", resume=True) as run:
        assert run.resume()
        assert run.drive()
    assert [r["updates"] for r in records(tmp_path / "x")] == list(range(1, 25))


def test_ctrl_c_cuts_an_evaluation_short(tmp_path: Path) -> None:
    reached = []

    def evaluate(updates: int) -> dict[str, Record]:
        signal.raise_signal(signal.SIGINT)
        reached.append(updates)
        return {}

    with run_of(tmp_path / "x", evaluate=evaluate, evaluate_every=6) as run:
        assert not run.drive()
    assert reached == []
    assert saved(tmp_path / "x") == [6]
    with run_of(tmp_path / "x", resume=True, evaluate_every=6) as run:
        assert run.resume()
        run.drive()
    assert [r["updates"] for r in records(tmp_path / "x", "eval")] == [7, 13, 19]  # the one cut short is made up for


def test_the_second_signal_kills_as_usual(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with run_of(tmp_path / "x") as run:
            interrupting(run.actors[0].env, 3)
            interrupting(run.actors[1].env, 3)
            with pytest.raises(KeyboardInterrupt):
                run.drive()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, real, calls = Watcher(), checkpoint.save_file, []

    def save_file(*arguments: Any) -> None:
        calls.append(1)
        if 3 <= len(calls) <= 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    with run_of(tmp_path / "x", watcher, checkpoint_seconds=0.0) as run:
        assert run.drive()
    assert len(watcher.messages) == 3
    assert "No space left on device" in watcher.messages[0]
    assert "earlier ones are intact" in watcher.messages[0]
    assert saved(tmp_path / "x") == [23, 24]


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    watcher = Watcher(last=3)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with run_of(tmp_path / "x", watcher) as run, pytest.raises(UserError, match="cannot write a checkpoint"):
        run.drive()
    assert watcher.events[-1] == "end"  # the progress bar is taken down


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    base = {"teachers": ["a"], **small()}
    path.write_text(yaml.safe_dump(DistillRecipe.parse(base, "x").model_dump(mode="json")))
    free = ("schedule.total_updates", "evaluation", "device")
    require_same(path, DistillRecipe.parse(base, "x"), free)
    longer = {**base, "schedule": {**base["schedule"], "total_updates": 99}, "evaluation": {"every": 3}}
    require_same(path, DistillRecipe.parse(longer, "x"), free)
    older = yaml.safe_load(path.read_text())
    del older["memory"]["beta_end"]  # the run was begun before there was this setting
    path.write_text(yaml.safe_dump(older))
    require_same(path, DistillRecipe.parse(base, "x"), free)
    require_same(tmp_path / "none", DistillRecipe.parse(longer, "x"), free)
    other = {**base, "learner": {**base["learner"], "batch_size": 64}}
    with pytest.raises(UserError, match=r"learner.batch_size is 64, but the run in .* has 16"):
        require_same(path, DistillRecipe.parse(other, "x"), free)
    path.write_text("- broken")
    with pytest.raises(UserError, match="damaged"):
        require_same(path, DistillRecipe.parse(base, "x"), free)


def test_sigint_from_outside(tmp_path: Path) -> None:
    """The whole command: exit code 130, one line, and a checkpoint that --resume takes up."""
    teachers = [str(write_teacher(tmp_path / n, n)) for n in NAMES]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"teachers": teachers, **small(schedule={"total_updates": 10**6})}))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "polydistill.cli", "distill", str(recipe), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (out / METRICS).exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "--resume" in said
    assert said.count("\n") == 1
    found = checkpoint.latest(out / CHECKPOINTS)
    assert found is not None
    assert found.step > 0
    assert records(out)[-1]["updates"] == found.step
    assert not (out / ".lock").exists()
    assert json.loads((out / "run.json").read_text())["finished"] is None


@pytest.mark.parametrize("name", ["cude", "cuda:99", ""])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name}: not available here") as error:
        device_of(name)
    assert "\n" not in str(error.value)


def test_fixture_teachers_differ() -> None:
    assert fitted_teacher("catch").task.n_actions != fitted_teacher("catch-wind").task.n_actions
