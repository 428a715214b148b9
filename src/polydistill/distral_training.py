"""Distral from end to end: what ``polydistill distral TASK ...`` does, as a function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError

from polydistill.envs.base import EVALUATION_SEED_BASE, VecEnv
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError
from polydistill.evaluation.remembering import Remembering, play_remembering
from polydistill.evaluation.rows import Label, Row, mean_scores, write_csv
from polydistill.nets.columns import Column, ColumnOutput
from polydistill.recipe import require_same
from polydistill.settings import Settings
from polydistill.tasks import Task
from polydistill.training import checkpoint
from polydistill.training.distral import Distral, DistralSettings, Look, Networks, require_one_action_set
from polydistill.training.folder import RunFolder, now, provenance, resumed
from polydistill.training.progress import duration
from polydistill.training.run import CHECKPOINTS, METRICS, device_of, stop_on_signal

#: What a resumed run may change.
RESUMED_WITH = ("total_steps", "episodes", "device", "threads")

PROTOCOL = "drawn"  # full episodes, actions drawn from the policy, as the paper's agents are scored
DISTILLED = "distilled"  # the variant whose rows are pi_0's


class DistralRecipe(Settings):
    """Everything a run of Distral depends on, beside the code and the machine.

    Attributes:
        tasks: Names; all with one action set and one kind of observation.
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
) -> Outcome:
    """Train one agent on all tasks, score every task's policy and the distilled one, save.

    Raises:
        UserError: bad input; nothing has been written then. Or a gradient that is not finite.
    """
    if not isinstance(recipe, DistralRecipe):
        recipe = DistralRecipe.parse(recipe, "recipe")
    device = str(device_of(recipe.device))
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    tasks = [resolve_task(name) for name in recipe.tasks]
    require_one_action_set(tasks)
    envs: list[VecEnv] = []
    try:
        for task in tasks:
            envs.append(make_env(task, recipe.settings.num_envs, threads=recipe.threads))
        learner = Distral(envs, recipe.settings, recipe.total_steps, recipe.seed, device)
        folder = RunFolder(Path(out), resume=resume, overwrite=overwrite)
        try:
            return _train(recipe, learner, folder, resume, command, say)
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
) -> Outcome:
    if resume:
        require_same(folder.path / "recipe.yaml", recipe, RESUMED_WITH)
    size = sum(p.numel() for p in learner.nets.parameters())
    info = {**provenance(command), "finished": None, "tasks": [t.to_dict() for t in learner.tasks], "parameters": size}
    if resume:
        info = resumed(info, folder.path / "run.json")
    folder.write_json("run.json", info)
    folder.write_yaml("recipe.yaml", recipe.model_dump(mode="json"))
    clock = _Clock(folder, learner, say)
    if resume and clock.resume():
        say(f"resumed {folder.path} after {learner.steps:,} control steps of each task")
    finished = clock.drive()
    scores, distilled = _score(recipe, learner, folder, say) if finished else ({}, {})
    folder.write_json("run.json", {**info, "finished": now() if finished else None, "seconds": round(clock.seconds, 1)})
    return Outcome(folder.path, finished, scores, distilled)


class _Clock:
    """When to log and to save."""

    log_seconds, checkpoint_seconds = 10.0, 180.0

    def __init__(self, folder: RunFolder, learner: Distral, say: Callable[[str], None]):
        self.folder, self.learner, self._say = folder, learner, say
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
        self._say(
            f"{learner.steps:,}/{learner.total_steps:,} control steps of each task | {rate * games:,.0f}/s | "
            f"return {told} | {left} left"
        )

    def save(self) -> None:
        """Write a checkpoint."""
        tensors, counters = self.learner.state()
        state = {**counters, "seconds": self.seconds, "metrics_bytes": self.folder.size(METRICS)}
        try:
            checkpoint.save(self.folder.path / CHECKPOINTS, self.learner.steps, tensors, state)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write a checkpoint to {self.folder.path}: {error}; free some space") from None

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


def task_policy(nets: Networks, task: int, device: str) -> Remembering:
    """A task's policy, as the evaluation plays it."""
    return _playing(partial(nets.look, task), nets.empty, device)


def distilled_policy(column: Column, device: str) -> Remembering:
    """pi_0 alone."""
    return _playing(column, column.empty, device)


def _playing(look: Callable[..., Look | ColumnOutput], empty: Callable[[int], Any], device: str) -> Remembering:
    """``look(obs [1, N, ...], start [1, N], memory)`` as something that plays, from the memory ``empty(N)``."""

    @torch.inference_mode()
    def play(obs: np.ndarray, start: np.ndarray, memory: Any) -> tuple[np.ndarray, Any]:
        seen, first = (torch.from_numpy(x).to(device)[None] for x in (obs, start))
        out = look(seen, first, memory if memory is not None else empty(len(obs)))
        return out.logits[0].softmax(-1).cpu().numpy(), out.memory

    return play


def _score(
    recipe: DistralRecipe, learner: Distral, folder: RunFolder, say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, float]]:
    """Final scores on seeds used nowhere else; writes ``scores.csv``."""
    rows: list[Row] = []
    distilled: list[Row] = []
    label = Label(recipe.settings.agent, recipe.seed, learner.updates, learner.steps * len(learner.tasks))
    shared = learner.nets.shared if learner.agent.distils else None
    for g, task in enumerate(learner.tasks):
        say(f"final scores: {recipe.episodes} episodes of {task.name}")
        rows += _play(task, task_policy(learner.nets, g, learner.device), recipe.episodes, label)
        if shared is not None:
            of_pi0 = Label(DISTILLED, recipe.seed, label.updates, label.control_steps)
            distilled += _play(task, distilled_policy(shared, learner.device), recipe.episodes, of_pi0)
    write_csv(folder.path / "scores.csv", [*rows, *distilled], Row)
    return mean_scores(rows), mean_scores(distilled) if distilled else {}


def _play(task: Task, policy: Remembering, episodes: int, label: Label) -> list[Row]:
    env = make_env(task, min(10, episodes))
    try:
        return [
            Row(
                variant=label.variant, task=task.name, seed=label.seed, updates=label.updates,
                control_steps=label.control_steps, protocol=PROTOCOL, episode=k, steps=e.steps, score=e.score,
                teacher_score=float("nan"), percent=float("nan"),
            )
            for k, e in enumerate(play_remembering(env, policy, episodes=episodes, seed=EVALUATION_SEED_BASE))
        ]  # fmt: skip
    finally:
        env.close()
