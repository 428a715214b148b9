"""Distral from end to end: what ``polydistill distral TASK ...`` does, as a function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from polydistill.devices import device_of
from polydistill.envs.base import VecEnv
from polydistill.envs.suite import expand, make_env, resolve_task
from polydistill.evaluation.remembering import DISTILLED, PROTOCOL
from polydistill.evaluation.rows import Row, mean_scores, write_csv
from polydistill.recipe import require_same
from polydistill.settings import Settings
from polydistill.training import checkpoint, distral_files
from polydistill.training.distral import Distral, DistralSettings, require_one_action_set
from polydistill.training.distral_files import Saved
from polydistill.training.distral_policy import DistralPolicy, score
from polydistill.training.folder import RunFolder, now, provenance, resumed
from polydistill.training.progress import duration
from polydistill.training.stopping import stop_on_signal
from polydistill.training.watched import CHECKPOINTS, METRICS

__all__ = ["DISTILLED", "PROTOCOL", "DistralRecipe", "Outcome", "distral"]

UNIT = "control steps of each task"

#: What a resumed run may change.
RESUMED_WITH = ("total_steps", "episodes", "device", "threads")


class DistralRecipe(Settings):
    """Everything a run of Distral depends on, beside the code and the machine.

    Attributes:
        tasks: Names; all with one action set and one kind of observation. :func:`distral` puts a suite's tasks in the
            place of its name.
        settings: See :class:`~polydistill.training.distral.DistralSettings`.
        total_steps: Control steps of each task.
        episodes: Of each task in the final evaluation.
        threads: Of torch and of each task's environments; 0: one per core.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    settings: DistralSettings = DistralSettings()
    total_steps: int = Field(1_000_000, ge=1)
    episodes: int = Field(30, ge=1)
    seed: int = Field(1, ge=0, lt=100_000)
    device: str = "auto"
    threads: int = Field(0, ge=0)


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        finished: Whether it came to its end; False: a signal stopped it, and there is a checkpoint.
        scores: Mean return per task of the final evaluation; empty unless finished.
        distilled: The same of pi_0 in every task; empty where the agent has no distilled policy.
    """

    folder: Path
    finished: bool
    scores: dict[str, float]
    distilled: dict[str, float]


def distral(
    recipe: DistralRecipe | Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str | None = None,
    say: Callable[[str], None] = print,
    show: Callable[[int, int, str], None] | None = None,
) -> Outcome:
    """Train one agent on all tasks, score every task's policy and the distilled one, save.

    Args:
        say: Told what happens, in lines.
        show: Told now and then how far it is: control steps of each task, of how many, and what else is known; None:
            ``say`` is.

    Raises:
        UserError: bad input; nothing has been written then. Or a gradient that is not finite.
    """
    if not isinstance(recipe, DistralRecipe):
        recipe = DistralRecipe.parse(recipe, "recipe")
    recipe = recipe.model_copy(update={"tasks": tuple(expand(recipe.tasks))})
    device = str(device_of(recipe.device))
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    tasks = [resolve_task(name, continuous=True) for name in recipe.tasks]
    require_one_action_set(tasks)
    envs: list[VecEnv] = []
    try:
        for task in tasks:
            envs.append(make_env(task, recipe.settings.num_envs, threads=recipe.threads))
        learner = Distral(envs, recipe.settings, recipe.total_steps, recipe.seed, device)
        folder = RunFolder(Path(out), resume=resume, overwrite=overwrite)
        try:
            return _train(recipe, learner, folder, resume, command, say, show)
        finally:
            folder.close()
    finally:
        for env in envs:
            env.close()


def _train(
    recipe: DistralRecipe,
    learner: Distral,
    folder: RunFolder,
    resume: bool,
    command: str | None,
    say: Callable[[str], None],
    show: Callable[[int, int, str], None] | None,
) -> Outcome:
    if resume:
        require_same(folder.path / "recipe.yaml", recipe, RESUMED_WITH)
    size = sum(p.numel() for p in learner.nets.parameters())
    about = provenance(command, str(learner.device))
    info = {**about, "finished": None, "tasks": [t.to_dict() for t in learner.tasks], "parameters": size}
    if resume:
        info = resumed(info, folder.path / "run.json")
    folder.write_json("run.json", info)
    folder.write_yaml("recipe.yaml", recipe.model_dump(mode="json"))
    clock = _Clock(folder, learner, recipe, say)
    clock.show = show or clock.show
    if resume and clock.resume():
        say(f"resumed {folder.path} after {learner.steps:,} control steps of each task")
    finished = clock.drive()
    scores, distilled = _score(recipe, learner, folder, say) if finished else ({}, {})
    folder.write_json("run.json", {**info, "finished": now() if finished else None, "seconds": round(clock.seconds, 1)})
    return Outcome(folder.path, finished, scores, distilled)


class _Clock:
    """When to log and to save."""

    log_seconds, checkpoint_seconds = 10.0, 180.0

    def __init__(self, folder: RunFolder, learner: Distral, recipe: DistralRecipe, say: Callable[[str], None]):
        self.folder, self.learner, self.recipe, self._say = folder, learner, recipe, say
        self.show: Callable[[int, int, str], None] = lambda done, total, text: say(
            f"{done:,}/{total:,} {UNIT} | {text}"
        )
        self.seconds = 0.0  # of all sittings

    def drive(self) -> bool:
        """Train to the end or to a signal. True if it came to the end."""
        learner, before = self.learner, self.seconds
        began = saved = logged = time.monotonic()
        first, kept = learner.steps, list[dict[str, float]]()
        with stop_on_signal() as stop:
            for metrics in learner.run():
                kept.append(metrics)
                clock = time.monotonic()
                self.seconds = before + clock - began
                if clock - logged > self.log_seconds or stop.asked:
                    logged = clock
                    self._log(kept, (learner.steps - first) / max(clock - began, 1e-9))
                    kept = []
                if clock - saved > self.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                if stop.asked:
                    break
        if kept:
            self._log(kept, (learner.steps - first) / max(time.monotonic() - began, 1e-9))
        self.save()
        if learner.steps < learner.total_steps:
            self._say(f"stopped after {learner.steps:,} control steps of each task; continue with --resume")
            return False
        return True

    def _log(self, kept: Sequence[Mapping[str, float]], rate: float) -> None:
        learner = self.learner
        losses = {name: float(np.mean([m[name] for m in kept])) for name in kept[0]}
        returns = dict(zip((t.name for t in learner.tasks), learner.mean_returns(), strict=True))
        games = len(learner.tasks)
        record = {
            "kind": "train", "seconds": round(self.seconds, 2), "updates": learner.updates,
            "control_steps": learner.steps * games, "control_steps_per_s": rate * games, "losses": losses,
            "tasks": {name: {"return": value} for name, value in returns.items()},
        }  # fmt: skip
        self.folder.append(METRICS, record)
        told = " ".join(f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in returns.items())
        left = duration((learner.total_steps - learner.steps) / rate) if rate else "?"
        text = f"{rate * games:,.0f}/s | return {told} | {left} left"
        self.show(learner.steps, learner.total_steps, text)

    def save(self) -> None:
        """Write a checkpoint, and the policies as files that are there without it."""
        tensors, counters = self.learner.state()
        state = {**counters, "seconds": self.seconds, "metrics_bytes": self.folder.size(METRICS)}
        checkpoint.save(self.folder.path / CHECKPOINTS, self.learner.steps, tensors, state)
        sizes = self.recipe.settings
        distral_files.save(self.folder.path, _saved(self.recipe, self.learner), sizes.hidden, sizes.lstm)

    def resume(self) -> bool:
        """Go back to the newest checkpoint. False: there is none, and training begins anew."""
        found = checkpoint.latest(self.folder.path / CHECKPOINTS)
        if found is None:
            self.folder.truncate(METRICS, 0)
            return False
        self.learner.load_state(found.tensors, found.state)
        self.seconds = found.state["seconds"]
        self.folder.truncate(METRICS, found.state["metrics_bytes"])
        return True


def _score(
    recipe: DistralRecipe, learner: Distral, folder: RunFolder, say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, float]]:
    """Final scores on seeds used nowhere else; writes ``scores.csv``."""
    policy = DistralPolicy(_saved(recipe, learner), folder.path, torch.device(learner.device))
    rows, distilled = score(
        policy, recipe.episodes, on_task=lambda task: say(f"final scores: {recipe.episodes} episodes of {task}")
    )
    write_csv(folder.path / "scores.csv", [*rows, *distilled], Row)
    return mean_scores(rows), mean_scores(distilled)


def _saved(recipe: DistralRecipe, learner: Distral) -> Saved:
    played = learner.steps * len(learner.tasks)
    return Saved(learner.nets, tuple(learner.tasks), recipe.settings.agent, recipe.seed, learner.updates, played)
