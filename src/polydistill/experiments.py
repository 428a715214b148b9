"""What an experiment's YAML file holds, and the runs that come of it. Nothing is started or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from polydistill.commands import KINDS, PlannedRun, plan_run, plan_transfer
from polydistill.errors import UserError
from polydistill.plugins import nearest
from polydistill.recipe import read
from polydistill.settings import Settings
from polydistill.teachers.zoo import read_card

FOLDER = "experiments"  # of the shipped ones, under recipes/


class Paper(Settings):
    """``percent``: task -> variant -> % of teacher; ``source`` names paper, table and what differs in its protocol."""

    source: str
    percent: dict[str, dict[str, float]]


class PaperCurves(Settings):
    """A paper's learning curves of the game that is left out.

    Attributes:
        source: Paper, table and what differs.
        millions: Control steps, in millions.
        scores: Variant -> scores at those.
    """

    source: str
    millions: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]


class Experiment(Settings):
    """One comparison.

    Attributes:
        about: What is compared, in words; the README of the results begins with it.
        recipe: The recipe every variant starts from.
        overrides: Dotted settings of every distillation.
        variants: Name -> dotted settings, plus ``kind`` (a name in :data:`~polydistill.commands.KINDS`; ``distill`` if
            not given) and ``recipe`` (another base). Variants that are no distillation take no ``overrides``.
        teachers: Groups of teachers' folders; each group is one run per variant and seed.
        left_out: A teacher of the task that variants of kind ``transfer`` learn, and no other run sees. They start from
            the run of the variant ``source``, of the same seed; the teacher is for comparison alone.
        reach: Per cents of teacher; the results say after how many updates each variant came so far.
        best: The results also say how good each variant was at the end and at its best evaluation.
        paper: The numbers to stand beside ours.
    """

    about: str = ""
    recipe: str
    overrides: dict[str, Any] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    teachers: tuple[tuple[str, ...], ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    reach: tuple[int, ...] = ()
    best: bool = False
    paper: Paper | None = None
    left_out: str | None = None
    paper_curves: PaperCurves | None = None


@dataclass(frozen=True)
class Choice:
    """Which runs of an experiment, and what is changed in all of them. Empty: all of them, nothing.

    Attributes:
        tasks: Groups of teachers in which one of these tasks is.
        updates: Optimiser steps of every distillation.
        steps: Control steps of each game of every run that is budgeted by them.
        settings: Dotted settings of every distillation, over the variant's.
        shard: (i, n): of every n runs the one at place i.
    """

    variants: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    updates: int | None = None
    steps: int | None = None
    settings: Mapping[str, Any] | None = None
    shard: tuple[int, int] = (0, 1)


def load_experiment(name: str) -> tuple[str, Experiment]:
    """Name and content of a shipped experiment or a YAML file.

    Raises:
        UserError: no such experiment, or a mistake in it.
    """
    content, where = read(name, FOLDER)
    found = Experiment.parse(content, where)
    for task, percents in (found.paper.percent if found.paper else {}).items():
        for variant in percents:
            if variant not in found.variants:
                known = nearest(variant, found.variants)
                raise UserError(f"{where}: paper.percent.{task}: no variant {variant!r}; {known}")
    for variant, settings in found.variants.items():
        kind = str(settings.get("kind", "distill"))
        if kind not in KINDS:
            raise UserError(f"{where}: variants.{variant}.kind: no kind {kind!r}; {nearest(kind, KINDS)}")
        if kind == "transfer":
            _check_transfer(found, variant, where)
    return Path(name).stem, found


def _check_transfer(experiment: Experiment, variant: str, where: str) -> None:
    """Raises UserError if a transfer has no task, no single group of sources, or a source that is no variant."""
    if experiment.left_out is None or len(experiment.teachers) != 1:
        raise UserError(f"{where}: variants.{variant}: a transfer needs left_out and one group of teachers")
    source = experiment.variants[variant].get("source")
    makers = [v for v, own in experiment.variants.items() if own.get("kind", "distill") != "transfer"]
    if source is not None and source not in makers:
        raise UserError(f"{where}: variants.{variant}.source: no variant {source!r}; {nearest(str(source), makers)}")


def transfers_of(experiment: Experiment) -> tuple[str, ...]:
    """Variants of kind ``transfer``."""
    return tuple(v for v, own in experiment.variants.items() if own.get("kind") == "transfer")


def left_out_of(experiment: Experiment) -> tuple[str, ...]:
    """The task that is left out, if there is one. Raises UserError if its teacher is not there."""
    return () if experiment.left_out is None else (str(read_card(Path(experiment.left_out))["task"]["name"]),)


def tasks_of(experiment: Experiment) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Each group of teachers -> the names of their tasks, from their cards.

    Raises:
        UserError: a teacher that is not there.
    """
    return {group: tuple(str(read_card(Path(t))["task"]["name"]) for t in group) for group in experiment.teachers}


def plan_runs(experiment: Experiment, folder: Path, choice: Choice | None = None) -> list[PlannedRun]:
    """Every run that was chosen, in the order in which they are made.

    Args:
        folder: Where the runs' folders are.

    Raises:
        UserError: a recipe or teacher that cannot be, a name that is not in the experiment, or one task in two groups.
    """
    choice = choice or Choice()
    groups = tasks_of(experiment)
    names = [*(name for tasks in groups.values() for name in tasks), *left_out_of(experiment)]
    for flag, wanted, known in (("--only", choice.variants, experiment.variants), ("--tasks", choice.tasks, names)):
        for name in wanted:
            if name not in known:
                raise UserError(f"{flag} {name}: not in this experiment; {nearest(name, known)}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"teachers: {twice} is named twice, so a variant would have two scores of it; make two files")
    runs = [
        _planned(experiment, variant, group, tasks, seed, folder, choice)
        for seed in choice.seeds or experiment.seeds
        for group, tasks in groups.items()
        for variant in choice.variants or experiment.variants
    ]
    runs = [run for run in runs if not choice.tasks or set(run.tasks) & set(choice.tasks)]
    i, n = choice.shard
    return [run for k, run in enumerate(runs) if k % n == i % n]


def _planned(
    experiment: Experiment,
    variant: str,
    teachers: Sequence[str],
    tasks: tuple[str, ...],
    seed: int,
    folder: Path,
    choice: Choice,
) -> PlannedRun:
    own = dict(experiment.variants[variant])
    kind, recipe = KINDS[own.pop("kind", "distill")], own.pop("recipe", experiment.recipe)
    if kind is KINDS["distill"]:
        own = {**experiment.overrides, **own, **(choice.settings or {})}
    for key, amount in ((kind.updates, choice.updates), (kind.steps, choice.steps)):
        if key is not None and amount is not None:
            own[key] = amount
    if kind is KINDS["transfer"]:
        maker, target = own.pop("source", None), left_out_of(experiment)[0]
        source = folder / _name(maker, tasks, seed) if maker is not None else None
        out = folder / _name(variant, (target,), seed)
        return plan_transfer(recipe, own, source, str(experiment.left_out), target, seed, out, variant)
    out = folder / _name(variant, tasks, seed)
    return plan_run(kind, recipe, own, teachers, tasks, seed, out, variant)


def _name(variant: str, tasks: Sequence[str], seed: int) -> str:
    return f"{variant}-{'+'.join(tasks)}-s{seed}"
