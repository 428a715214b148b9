"""Students in the shadow of ``polydistill teach``: what they are shown, their curve, and their folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from polydistill.envs.base import Step, VecEnv
from polydistill.errors import UserError
from polydistill.evaluation.protocol import Protocol
from polydistill.evaluation.rows import append_csv, mean_scores, read_csv
from polydistill.nets.student import count
from polydistill.ops.scores import percent_of_teacher
from polydistill.training.folder import RunFolder, now
from polydistill.training.shadow import Shadow
from polydistill.training.student_folder import Scored, complete

CURVE = "shadow.csv"


@dataclass(frozen=True)
class Point:
    """One student in one evaluation: the columns of ``shadow.csv``.

    Attributes:
        control_steps: The learner's; on Atari one is four frames.
        learner, best: The learner's score now, and its best so far, which is the teacher's.
        swapped: 1 if this evaluation made the learner the teacher.
        seed, updates: The student's seed, and its optimiser steps so far.
        student: Its score on the same starts; NaN (an empty cell) before its first update.
        loss, agreement: Means since the evaluation before; NaN if there was no update.
    """

    control_steps: int
    learner: float
    best: float
    swapped: int
    seed: int
    updates: int
    student: float
    loss: float
    agreement: float

    def evaluation(self, task: str) -> dict[str, Any]:
        """The student's part as a line of ``metrics.jsonl``."""
        percent = float(percent_of_teacher(self.student, self.best))
        scores = {"score": self.student, "low": None, "high": None, "teacher": self.best}
        scores["percent"] = None if math.isnan(percent) else percent
        return {
            "kind": "eval",
            "updates": self.updates,
            "control_steps": self.control_steps,
            "tasks": {task: scores},
        }


class Watched:
    """A :class:`VecEnv` that shows others what its player sees. It changes nothing: the player cannot tell."""

    def __init__(self, env: VecEnv, watchers: Sequence[Callable[[np.ndarray, np.ndarray], None]]):
        self.task, self.num_envs = env.task, env.num_envs
        self._env, self._watchers = env, watchers

    def reset(self, seed: int) -> np.ndarray:
        obs = self._env.reset(seed)
        self._show(obs, np.ones(self.num_envs, np.bool_))
        return obs

    def step(self, actions: np.ndarray) -> Step:
        step = self._env.step(actions)
        self._show(step.obs, step.ended)
        return step

    def close(self) -> None:
        self._env.close()

    def _show(self, obs: np.ndarray, start: np.ndarray) -> None:
        for watch in self._watchers:
            watch(obs, start)


@dataclass
class Online:
    """Students that follow the learner whose folder this is.

    Attributes:
        folder: The learner's; ``shadow.csv`` and the students' folders are written there.
        info: What a student's ``run.json`` says of command, commit and machine.
        draw: Called after each evaluation; it may draw the curve.
        say: What a person should read.
    """

    folder: RunFolder
    shadows: Sequence[Shadow]
    info: Mapping[str, Any]
    draw: Callable[[], None] = lambda: None
    say: Callable[[str], None] = print
    _metrics: list[list[dict[str, float]]] = field(init=False)

    def __post_init__(self) -> None:
        self._metrics = [[] for _ in self.shadows]

    def path(self, shadow: Shadow) -> Path:
        """The student's folder: ``student``, and beside the first ``student-seed2`` and so on."""
        first = shadow is self.shadows[0]
        return self.folder.path / ("student" if first else f"student-seed{shadow.seed}")

    def catch_up(self, progress: int) -> None:
        """The updates that are due after ``progress`` further control steps of the learner."""
        for shadow, metrics in zip(self.shadows, self._metrics, strict=True):
            metrics += filter(None, [shadow.catch_up(progress)])

    def evaluate(self, score: float, net: nn.Module, control_steps: int, protocol: Protocol) -> str:
        """Offer the learner's network; play each student under the learner's own protocol, and save it.

        Returns:
            The students' scores in words.
        """
        points, told = [], []
        for shadow, metrics in zip(self.shadows, self._metrics, strict=True):
            swapped = shadow.offer(score, net, control_steps)
            theirs = math.nan
            if shadow.updates:  # an untrained one may stand still for a whole evaluation
                theirs = mean_scores(shadow.evaluate(protocol, control_steps))[shadow.task.name]
            told.append("waits" if math.isnan(theirs) else f"{theirs:.1f}")
            loss, agreement = (float(np.mean([m[k] for m in metrics] or [math.nan])) for k in ("loss", "agreement"))
            points.append(
                Point(
                    control_steps, score, shadow.best.score, int(swapped), shadow.seed, shadow.updates,
                    theirs, loss, agreement,
                )
            )  # fmt: skip
            metrics.clear()
            shadow.save(self.path(shadow))
        append_csv(self.folder.path / CURVE, points, Point)
        self.draw()
        return f"student {', '.join(told)}"

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors and the rest of a checkpoint."""
        tensors: dict[str, dict[str, Tensor]] = {}
        counters = []
        for i, shadow in enumerate(self.shadows):
            own, rest = shadow.state()
            tensors |= {f"shadow{i}-{part}": named for part, named in own.items()}
            counters.append(rest)
        return tensors, {"curve_bytes": self.folder.size(CURVE), "students": counters}

    def load_state(
        self, tensors: Mapping[str, dict[str, Tensor]], state: Mapping[str, Any] | None, net: nn.Module
    ) -> None:
        """Undo :meth:`state`; the curve is cut back to that moment.

        Args:
            state: None: nothing had been saved, so nothing of the curve is kept.
            net: A network of the learner's shape.

        Raises:
            UserError: the checkpoint is of other students, or of another seed than theirs.
        """
        students = [] if state is None else state["students"]
        if state is not None and len(students) != len(self.shadows):
            raise UserError(f"the checkpoint in {self.folder.path} has {len(students)} shadow students")
        for shadow, rest in zip(self.shadows, students, strict=False):
            if rest["seed"] != shadow.seed:
                raise UserError(
                    f"--resume: a shadow student in {self.folder.path} has seed {rest['seed']}, not {shadow.seed}: "
                    "give the seed that the run was begun with"
                )
        for i, (shadow, rest) in enumerate(zip(self.shadows, students, strict=False)):
            own = {k.partition("-")[2]: v for k, v in tensors.items() if k.startswith(f"shadow{i}-")}
            shadow.load_state(own, rest, net)
        self.folder.truncate(CURVE, 0 if state is None else state["curve_bytes"])

    def finish(self, scored: Scored, control_steps: int, wall_seconds: float) -> None:
        """Score the students like the teacher, and complete their folders to those of finished runs.

        Args:
            scored: How the teacher did, played from its written file.
            wall_seconds: What the whole training took.
        """
        for shadow in self.shadows:
            path, task = self.path(shadow), shadow.task.name
            shadow.save(path)
            curve = [p for p in read_csv(self.folder.path / CURVE, Point) if p.seed == shadow.seed]
            info = {**self.info, "finished": now(), "wall_seconds": round(wall_seconds, 1)}
            ours = complete(path, shadow, scored, [p.evaluation(task) for p in curve if p.updates], info, control_steps)
            self.say(
                f"{task}, student of {count(shadow.student):,} parameters: {ours.score:.1f} "
                f"[{ours.low:.1f}, {ours.high:.1f}], its teacher {ours.teacher:.1f} -> {path}"
            )
