"""Distral against separate soft Q-learning in two rooms (Teh et al. 2017, section 4.1): what is measured, as rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.algorithms.tabular.distral import Prior, TabularDistral, TabularSettings
from polydistill.algorithms.tabular.two_rooms import (
    ACTIONS,
    BUMP,
    CONTEXTS,
    LEFT,
    RIGHT,
    STEP,
    TwoRooms,
    context_of,
)
from polydistill.errors import UserError
from polydistill.evaluation.rows import write_csv

SCORES, CURVES, PI0, COMMAND, README = "scores.csv", "curves.csv", "pi0.csv", "command.txt", "README.md"
CURVES_SVG, PI0_SVG = "curves.svg", "pi0.svg"
FILES = frozenset((SCORES, CURVES, PI0, COMMAND, README, CURVES_SVG, PI0_SVG))

DISTRAL, SEPARATE, OWN = "Distral", "separate soft Q-learning", "separate, own prior"
VARIANTS: dict[str, Prior] = {DISTRAL: "shared", SEPARATE: "uniform", OWN: "own"}

HORIZON = 100  # control steps of an evaluated episode
POINTS = 50  # evaluations after the first


@dataclass(frozen=True)
class SeedScore:
    """One learner of all tasks of one seed: a row of ``scores.csv``.

    Attributes:
        control_steps: Of each task.
        area: Mean of the learning curve from its first to its last point (its area, divided by its length).
        final: Its last point.
        keeps_left, keeps_right: Probability under pi_0 of the direction in which a cell of the corridor was entered,
            mean over its cells (and over tasks, where each has a prior of its own).
    """

    variant: str
    seed: int
    control_steps: int
    area: float
    final: float
    keeps_left: float
    keeps_right: float


@dataclass(frozen=True)
class Point:
    """A row of ``curves.csv``.

    Attributes:
        score: Expected return of the task policies, mean over tasks: undiscounted, of an episode of at most
            :data:`HORIZON` control steps that begins anywhere. Computed, not sampled.
    """

    variant: str
    seed: int
    control_steps: int
    score: float


@dataclass(frozen=True)
class Choice:
    """Distral's pi_0 in one state, mean over seeds: a row of ``pi0.csv``. Only states that can be reached.

    Attributes:
        row, column: The cell, from the map's upper left corner.
        previous: The previous action; ``none`` where an episode begins.
        reward: The previous reward; 0 where an episode begins.
        stay, up, down, left, right: Probabilities.
    """

    row: int
    column: int
    previous: str
    reward: float
    stay: float
    up: float
    down: float
    left: float
    right: float


def measure(
    settings: TabularSettings,
    seeds: Sequence[int],
    rollouts: int,
    variants: Sequence[str] = tuple(VARIANTS),
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[SeedScore], list[Point], list[Choice]]:
    """Learn everything, and keep nothing on disk.

    Args:
        rollouts: Of each task.
        variants: Keys of :data:`VARIANTS`.
        say: Told how far it is.

    Raises:
        ValueError: more tasks than cells for goals.
    """
    world, scores, points, choices = TwoRooms(), [], [], []
    marks = np.unique(np.linspace(0, rollouts, POINTS + 1).round().astype(int))
    begun = time.monotonic()
    for v, variant in enumerate(variants):
        learner, curve = TabularDistral(world, settings, seeds, VARIANTS[variant]), []
        for i in range(rollouts + 1):
            if i in marks:
                curve.append(_evaluate(world, learner))
                points += [
                    Point(variant, s, learner.control_steps, float(x)) for s, x in zip(seeds, curve[-1], strict=True)
                ]
            if i in marks[:: max(len(marks) // 5, 1)] and i:
                share = (v + i / rollouts) / len(variants)
                left = (time.monotonic() - begun) * (1 / share - 1)
                say(f"{variant}: {i:,}/{rollouts:,} rollouts | return {curve[-1].mean():.2f} | {left:.0f} s left")
            if i < rollouts:
                learner.iterate()
        y = np.stack(curve)  # [points, N]
        areas = np.diff(marks) @ ((y[1:] + y[:-1]) / 2) / (marks[-1] - marks[0])
        keeps = keeping(world, learner.pi0())
        for k, seed in enumerate(seeds):
            final = float(curve[-1][k])
            scores.append(
                SeedScore(variant, seed, learner.control_steps, float(areas[k]), final, *map(float, keeps[k]))
            )
        if variant == DISTRAL:
            choices = _choices(world, learner.pi0()[:, 0].mean(0))
    return scores, points, choices


def keeping(world: TwoRooms, pi0: np.ndarray) -> np.ndarray:
    """Probability of going on left, and right, in the corridor ``[N, 2]``; ``pi0`` is ``[N, P, S, A]``."""
    cells = np.flatnonzero(world.corridor)
    each = [pi0[:, :, cells * CONTEXTS + context_of(way), way].mean((1, 2)) for way in (LEFT, RIGHT)]
    return np.stack(each, -1)


def record(
    out: Path,
    settings: TabularSettings,
    seeds: Sequence[int],
    rollouts: int,
    variants: Sequence[str] = tuple(VARIANTS),
    overwrite: bool = False,
    *,
    about: Mapping[str, Any],
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """:func:`measure`, and write ``scores.csv``, ``curves.csv``, ``pi0.csv`` and ``command.txt`` when it is done.

    Args:
        about: Where the numbers come from, as :func:`~polydistill.training.folder.provenance` tells it.

    Raises:
        UserError: a number that cannot be, or a folder that is in use or not writable; found before anything begins.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"--seeds {' '.join(map(str, seeds))}: give different numbers from 0 up")
    if rollouts < 1:
        raise UserError(f"--rollouts {rollouts}: at least 1")
    rooms = int((~TwoRooms().corridor).sum())
    if settings.tasks > rooms:
        raise UserError(f"--goals {settings.tasks}: the rooms have {rooms} cells for goals, so at most {rooms}")
    _claim(out, overwrite)
    begun = time.monotonic()
    scores, points, choices = measure(settings, seeds, rollouts, variants, say)
    machine, dirty = about["machine"], " with uncommitted changes" if about["dirty"] else ""
    lines = [
        f"# seeds {' '.join(map(str, seeds))}; {', '.join(f'{k} {x}' for k, x in settings.model_dump().items())}",
        f"# commit {about['commit']}{dirty}; {machine['cores']} cores of {machine['cpu']}, {machine['ram_gb']} GB; "
        f"started {about['started']}, {time.monotonic() - begun:.0f} s",
        str(about["command"]).replace("\n", " "),
    ]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / SCORES, scores, SeedScore)
        write_csv(out / CURVES, points, Point)
        write_csv(out / PI0, choices, Choice)
        (out / COMMAND).write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {error.strerror}") from None


def _claim(out: Path, overwrite: bool) -> None:
    """Find a folder fit before a minute of work."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: name a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        there = {p.name for p in out.iterdir()}
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {error.strerror}; choose another folder") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to --out {out}: it is not writable; choose another folder")
    if strange := sorted(there - FILES):
        raise UserError(f"--out {out} holds {strange[0]}, which is not of this experiment: choose another folder")
    if there and not overwrite:
        raise UserError(f"--out {out} is in use: add --overwrite to replace its results, or choose another folder")


def _evaluate(world: TwoRooms, learner: TabularDistral) -> np.ndarray:
    """``[N]``, mean over tasks."""
    policies, goals = learner.policies(), learner.goals
    each = world.returns(policies.reshape(-1, *policies.shape[2:]), goals.ravel(), HORIZON)
    return np.asarray(each.reshape(goals.shape).mean(1))


def _choices(world: TwoRooms, pi0: np.ndarray) -> list[Choice]:
    """``pi0`` is ``[S, A]``."""
    rows = []
    for cell, (r, c) in enumerate(world.places):
        begin = [float(p) for p in pi0[cell * CONTEXTS]]
        rows.append(Choice(int(r), int(c), "none", 0.0, *begin))
        for action, name in enumerate(ACTIONS):
            for bumped in (False, True):
                if not ((world.target[:, action] == cell) & (world.bumped[:, action] == bumped)).any():
                    continue
                chances = [float(p) for p in pi0[cell * CONTEXTS + context_of(action, bumped)]]
                rows.append(Choice(int(r), int(c), name, round(STEP + BUMP * bumped, 6), *chances))
    return rows
