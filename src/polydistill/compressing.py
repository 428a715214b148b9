"""The smallest student that keeps a share of its teachers' scores: a search over sizes of one network."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from polydistill import api, planning
from polydistill.commands import KINDS, PlannedRun, State, plan_run
from polydistill.errors import UserError
from polydistill.evaluation.latency import FORWARDS, latency
from polydistill.nets.ladder import Size, ladder
from polydistill.nets.sizes import KIND
from polydistill.nets.store import CONFIG, WEIGHTS
from polydistill.nets.student import count
from polydistill.policies import Policy, load_policy, of_teacher
from polydistill.recipe import DistillRecipe, EvaluationSettings
from polydistill.reporting.pareto import Cost, ParetoRow, size_rows, teacher_rows, write_pareto
from polydistill.tasks import Suite
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import load_teacher
from polydistill.training.callbacks import Callback
from polydistill.training.folder import machine, require_usable

#: What is copied to the winner's folder: the student, and what its scores come from.
COPIED = (WEIGHTS, CONFIG, "recipe.yaml", "run.json", "scores.csv", "teacher_scores.csv", "summary.json")

Rule = Literal["mean", "low"]
RULES: Mapping[Rule, str] = {
    "mean": "the percentage itself counts",
    "low": "the lower end of the percentage's 95 % interval counts",
}


@dataclass(frozen=True)
class Compression:
    """What was found.

    Attributes:
        rows: Of every size that was made, and of the teachers.
        winner: The smallest size that keeps enough; None if there is none, or the search was stopped.
        best: The size that keeps most, and how much.
        finished: False after a stop by a signal.
    """

    rows: list[ParetoRow]
    winner: str | None
    best: tuple[str, float]
    finished: bool


def _cost(policies: Sequence[Policy], parameters: int, whole: int) -> Cost:
    """Of one network, or the mean over several."""
    each = [[latency(p.outputs(t.name), t, batch) for p in policies for t in p.suite.tasks[:1]] for batch in (1, 32)]
    return Cost(parameters, 100 * parameters / whole, *(float(np.mean(ms)) for ms in each))


@dataclass
class Search:
    """A ladder, and what is known of its sizes.

    Args:
        runs: The run of each size, the largest size first.
    """

    sizes: Sequence[Size]
    runs: Mapping[str, PlannedRun]
    teachers: Sequence[Teacher]
    keep: float
    rule: Rule
    out: Path

    def __post_init__(self) -> None:
        self.whole = sum(count(t.net) for t in self.teachers)
        self._teachers = _cost([of_teacher(t) for t in self.teachers], self.whole, self.whole)
        self._rows: dict[str, list[ParetoRow]] = {}

    def known(self, size: Size) -> bool:
        return size.name in self._rows

    def look(self, size: Size) -> None:
        """Take in the finished run of a size, and renew the tables.

        Raises:
            UserError: a teacher's score in it is not above 0.
        """
        run, asked = self.runs[size.name].folder, self._evaluation(size)
        self._rows[size.name] = size_rows(size.name, _cost([load_policy(run)], size.parameters, self.whole), run)
        notes = [
            f"{RULES[self.rule][0].upper()}{RULES[self.rule][1:]}.",
            "Several tasks: the geometric mean over them." if len(self.teachers) > 1 else "",
            f"The choice was made by these same {asked.final_episodes} games a task, so what the bold one keeps is on "
            "average overstated; the more games (evaluation.final_episodes), the less."
            if self.winner() is not None
            else "",
            f"Milliseconds: the median of up to {FORWARDS} forwards, from observations to outputs, one thread of "
            f"{machine()['cpu']}.",
            f"Not tried: {', '.join(s.name for s in self.sizes if not self.known(s))}."
            if len(self._rows) < len(self.sizes)
            else "",
        ]
        write_pareto(self.out, self.rows(), self.keep, [n for n in notes if n])
        for row in self._rows[size.name]:
            if row.teacher_score <= 0:
                teacher = next(t for t in self.teachers if t.task.name == row.task)
                games = f"in {asked.final_episodes} games ({asked.protocol})"
                raise _no_share(teacher, f"scored {row.teacher_score:.1f} {games}")

    def _evaluation(self, size: Size) -> EvaluationSettings:
        return cast(DistillRecipe, self.runs[size.name].settings).evaluation

    def value(self, size: Size) -> float:
        """What the rule compares with ``keep``; NaN where the teacher has no percentage."""
        last = self._rows[size.name][-1]
        return last.percent if self.rule == "mean" else last.low

    def passes(self, size: Size) -> bool:
        return self.value(size) >= self.keep

    def winner(self) -> Size | None:
        """The smallest known size that keeps enough."""
        return next((s for s in reversed(self.sizes) if self.known(s) and self.passes(s)), None)

    def best(self) -> tuple[str, float]:
        """The known size that keeps most; an unknown percentage is the least."""
        known = [s for s in self.sizes if self.known(s)]
        top = max(known, key=lambda s: np.nan_to_num(self.value(s), nan=-np.inf))
        return top.name, self.value(top)

    def rows(self) -> list[ParetoRow]:
        """The teachers' rows, then those of every known size, the largest first."""
        winner = self.winner()
        own = [self._rows[s.name] for s in self.sizes if self.known(s)]
        marked = [replace(r, kept=int(winner is not None and r.size == winner.name)) for rows in own for r in rows]
        return [*(teacher_rows(self._teachers, own[0]) if own else []), *marked]


def compress(
    teachers: Sequence[str | Path],
    out: str | Path,
    *,
    keep: float = 95.0,
    rule: Rule = "mean",
    sizes: Sequence[str] = (),
    every: bool = False,
    recipe: str = "rusu",
    settings: Mapping[str, Any] | None = None,
    seed: int = 1,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Compression:
    """Find the smallest student that keeps ``keep`` % of its teachers; each size is one distillation in ``out/SIZE``.

    The search halves the ladder, as if a larger student never kept less. Sizes that are finished in ``out`` are not
    made again, and one that was cut goes on.

    Args:
        teachers: Folders; several: one student for all of them.
        keep: Above 0.
        out: Holds the runs, ``pareto.csv``, ``pareto.md``, ``pareto.svg``, and the winner as ``student``.
        rule: See :data:`RULES`. Of several tasks it is the geometric mean.
        sizes: See :func:`ladder`.
        every: Make all sizes instead of halving.
        recipe: Recipe of the distillations; their student is the network ``mimic``.
        settings: Dotted settings on top of it.
        callbacks: Watchers of every distillation.
        say: Told what begins.

    Raises:
        UserError: bad input; nothing has been written then. Or a distillation that failed.
    """
    if not (math.isfinite(keep) and keep > 0):
        raise UserError(f"--keep {keep:g}: write a percentage above 0, for example 95")
    found, out = [load_teacher(t) for t in teachers], Path(out)
    _require_room(out)
    if not found:
        raise UserError("no teacher to compress: name its folder, for example zoo/breakout")
    suite = Suite(tuple(t.task for t in found))
    steps = ladder(suite, sum(count(t.net) for t in found), sizes)
    runs = {
        size.name: plan_run(
            KINDS["distill"],
            recipe,
            {**(settings or {}), "student.kind": KIND, "student.options": size.options},
            [str(t) for t in teachers],
            tuple(t.task.name for t in found),
            seed,
            out / size.name,
            size.name,
        )
        for size in steps
    }
    states = {size.name: runs[size.name].state() for size in steps}
    _check(found, runs, states, rule)
    _claim(out)
    search = Search(steps, runs, found, keep, rule, out)
    for size in steps:
        if states[size.name] == "finished":
            search.look(size)

    def make(size: Size) -> bool:
        """False: stopped by a signal."""
        share = 100 * size.parameters / search.whole
        say(f"{size.name}: {size.parameters:,} parameters, {share:.1f} % of the teacher's")
        if not search.known(size):
            cut = states[size.name] == "cut"
            run = runs[size.name]
            done = api.distill(
                cast(DistillRecipe, run.settings),
                run.folder,
                callbacks=callbacks,
                resume=cut,
                command=f"{run.command} --resume" if cut else run.command,
                inspect=False,
            )
            if not done.finished:
                return False
            search.look(size)
        say(f"{size.name}: keeps {search.value(size):.1f} %{'' if search.passes(size) else ', too little'}")
        return True

    left = list(steps)
    while left:
        middle = 0 if every else (len(left) - 1) // 2
        if not make(left[middle]):
            return Compression(search.rows(), None, ("", float("nan")), False)
        left = left[middle + 1 :] if every or search.passes(left[middle]) else left[:middle]
    winner = search.winner()
    _keep_student(out / "student", runs[winner.name].folder if winner else None)
    return Compression(search.rows(), winner.name if winner else None, search.best(), True)


def _check(
    teachers: Sequence[Teacher], runs: Mapping[str, PlannedRun], states: Mapping[str, State], rule: Rule
) -> None:
    """Refuse here what would end the search after its beginning.

    Raises:
        UserError: a teacher whose card has no score above 0, or whatever a distillation refuses.
    """
    asked = cast(DistillRecipe, next(iter(runs.values())).settings).evaluation
    for teacher in teachers:
        noted = teacher.score(asked.protocol)
        if noted is not None and noted <= 0:
            raise _no_share(teacher, f"scores {noted:.1f} ({asked.protocol}, its card)")
    if rule == "low" and asked.final_episodes == 1:
        raise UserError("--rule low needs an interval, which one game has not: give a larger evaluation.final_episodes")
    left = [name for name in runs if states[name] != "finished"]
    for name in left:
        require_usable(runs[name].folder, resume=states[name] == "cut")
    if left:  # the ladder has made every student already, and nothing else differs
        planning.rehearse(planning.check(cast(DistillRecipe, runs[left[0]].settings), teachers))


def _no_share(teacher: Teacher, scored: str) -> UserError:
    return UserError(
        f"the teacher of {teacher.task.name} ({teacher.path}) {scored}: no share of a score at or below 0 can be kept; "
        "train it longer, or compare scores with polydistill distill"
    )


def _require_room(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"cannot write to --out {out}: it is a file; choose another folder")
    kept = out / "student"
    if kept.exists() and not (kept / CONFIG).is_file():
        raise UserError(f"{kept} is not a student, and the winner would replace it: choose another --out")


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {error.strerror}; choose another folder") from None


def _keep_student(kept: Path, run: Path | None) -> None:
    """Copy the winner; without one there is no ``student``, for an earlier one kept less than is asked now."""
    tmp = kept.with_name(".student.tmp")
    shutil.rmtree(tmp, ignore_errors=True)
    if run is not None:
        tmp.mkdir()
        for name in COPIED:
            if (run / name).is_file():
                shutil.copy2(run / name, tmp / name)
    shutil.rmtree(kept, ignore_errors=True)
    if run is not None:
        os.replace(tmp, kept)
