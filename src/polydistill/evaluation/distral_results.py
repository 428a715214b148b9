"""What is kept of the runs of Distral's agents in an experiment, and where each agent stands.

As in the paper (Teh et al. 2017, section 4.2), an agent's best point of the grid is the one with the largest area under
its learning curves, mean over tasks and seeds; how robust it is, all of its runs show together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from polydistill.evaluation.curves import CURVES
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.transfer_measures import Curve, mean_score

SCORES = "scores.csv"


@dataclass(frozen=True)
class AgentScore:
    """One run in one task: a row of ``scores.csv``.

    Attributes:
        settings: The run's point in the grid, e.g. ``beta=30 learning_rate=0.0002``; empty without a grid.
        control_steps: Of this task.
        protocol: ``drawn``: full episodes, actions drawn from the policy.
        score: Mean return of the task's policy in the final evaluation.
        distilled: The same of pi_0 alone; NaN for an agent that distils nothing.
        parameters: Of all networks of the run together.
    """

    variant: str
    task: str
    seed: int
    settings: str
    updates: int
    control_steps: int
    protocol: str
    score: float
    distilled: float
    parameters: int


@dataclass(frozen=True)
class ReturnPoint:
    """A point of a learning curve: a row of ``curves.csv``.

    Attributes:
        settings: As in :class:`AgentScore`.
        control_steps: Of this task.
        score: Mean return of the last 100 finished training episodes.
    """

    variant: str
    task: str
    seed: int
    settings: str
    control_steps: int
    score: float


@dataclass
class Standing:
    """What is known of one agent; returns are means over the tasks.

    Attributes:
        best: Its best point of the grid.
        learning: Mean of the learning curve over the whole training, at the best point; NaN without curves.
        final: Seed -> final score, at the best point.
        distilled: The same of pi_0 alone; empty without one.
        runs: (Point of the grid, seed) -> final score.
        tasks, tasks_distilled: Task -> seed -> final score, at the best point.
        parameters: Of all networks together.
    """

    variant: str
    best: str
    learning: float
    parameters: int
    final: dict[int, float] = field(default_factory=dict)
    distilled: dict[int, float] = field(default_factory=dict)
    runs: dict[tuple[str, int], float] = field(default_factory=dict)
    tasks: dict[str, dict[int, float]] = field(default_factory=dict)
    tasks_distilled: dict[str, dict[int, float]] = field(default_factory=dict)

    def measures(self) -> dict[str, float]:
        """The means that claims are about; NaN where unknown."""
        return {
            "learning": self.learning,
            "final": mean(self.final.values()),
            "all runs": mean(self.runs.values()),
            "distilled": mean(self.distilled.values()),
        }


def read_results(experiment: Path) -> tuple[list[AgentScore], list[ReturnPoint]]:
    """Rows of ``scores.csv`` and ``curves.csv``. Raises UserError if one is missing or damaged."""
    return read_csv(experiment / SCORES, AgentScore), read_csv(experiment / CURVES, ReturnPoint)


def holds_agents(experiment: Path) -> bool:
    """Whether ``scores.csv`` has the columns of :class:`AgentScore`."""
    path = experiment / SCORES
    return path.is_file() and path.read_text().startswith("variant,task,seed,settings,")


def curves_of(points: Sequence[ReturnPoint]) -> dict[tuple[str, str], dict[tuple[int, str], Curve]]:
    """(Variant, point of the grid) -> (seed, task) -> curve."""
    found: dict[tuple[str, str], dict[tuple[int, str], list[tuple[float, float]]]] = {}
    for p in points:
        own = found.setdefault((p.variant, p.settings), {})
        own.setdefault((p.seed, p.task), []).append((p.control_steps, p.score))
    return {key: {who: sorted(curve) for who, curve in own.items()} for key, own in found.items()}


def learning_speed(curve: Curve) -> float:
    """Mean of a learning curve from step 0 to its last point: its area over its length.

    Before the first point, the end of the first episode, the curve has the first point's return.
    """
    return mean_score([(0, curve[0][1]), *curve], curve[-1][0])


def standings(scores: Sequence[AgentScore], points: Sequence[ReturnPoint]) -> list[Standing]:
    """Where each variant stands, in order of first appearance."""
    speeds = {key: mean(map(learning_speed, own.values())) for key, own in curves_of(points).items()}
    found = []
    for variant in dict.fromkeys(s.variant for s in scores):
        own = [s for s in scores if s.variant == variant]
        grid = list(dict.fromkeys(s.settings for s in own))
        speed = {point: speeds.get((variant, point), math.nan) for point in grid}
        best = max(grid, key=lambda point: -math.inf if math.isnan(speed[point]) else speed[point])
        at_best = [s for s in own if s.settings == best]
        standing = Standing(variant, best, speed[best], at_best[0].parameters)
        for s in at_best:
            standing.tasks.setdefault(s.task, {})[s.seed] = s.score
            if not math.isnan(s.distilled):
                standing.tasks_distilled.setdefault(s.task, {})[s.seed] = s.distilled
        standing.final, standing.distilled = _over_tasks(standing.tasks), _over_tasks(standing.tasks_distilled)
        for run in dict.fromkeys((s.settings, s.seed) for s in own):
            standing.runs[run] = mean(s.score for s in own if (s.settings, s.seed) == run)
        found.append(standing)
    return found


def mean(values: Iterable[float]) -> float:
    """NaN of none."""
    array = np.fromiter(values, np.float64)
    return float(array.mean()) if len(array) else math.nan


def _over_tasks(tasks: dict[str, dict[int, float]]) -> dict[int, float]:
    seeds = dict.fromkeys(seed for own in tasks.values() for seed in own)
    return {seed: mean(own[seed] for own in tasks.values() if seed in own) for seed in seeds}
