"""What an experiment's YAML file holds, and the runs that come of it. Nothing is started or written here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from polydistill.commands import KINDS, PlannedRun, plan_run, plan_transfer
from polydistill.envs.suite import expand, resolve_task
from polydistill.errors import UserError
from polydistill.evaluation.claims import Paper, PaperCurves, PaperOrder
from polydistill.plugins import nearest
from polydistill.recipe import read
from polydistill.settings import Settings
from polydistill.teachers.zoo import read_card, require_teachers

FOLDER = "experiments"  # of the shipped ones, under recipes/


class Experiment(Settings):
    """One comparison.

    Attributes:
        about: What is compared, in words; the README of the results begins with it.
        recipe: The recipe every variant starts from; left out with ``tasks``.
        overrides: Dotted settings of every distillation, and of every variant of kind ``distral``.
        variants: Name -> dotted settings, plus ``kind`` (a name in :data:`~polydistill.commands.KINDS`; ``distill`` if
            not given) and ``recipe`` (another base). Other kinds than those two take no ``overrides``.
        teachers: Groups of teachers' folders; each group is one run per variant and seed.
        tasks: Instead of teachers: what variants of kind ``distral`` learn together; ``doom:mazes``: a whole suite.
        grid: With tasks. Dotted setting -> values; every combination is one more run per variant and seed.
        left_out: A teacher of the task that variants of kind ``transfer`` learn, and no other run sees. They start from
            the run of the variant ``source``, of the same seed; the teacher is for comparison alone.
        reach: Per cents of teacher; the results say after how many updates each variant came so far, and how good
            it was on average over training.
        best: The results also say how good each variant was at the end and at its best evaluation.
        negative_transfer: The results also say which games each variant plays surely worse than the teacher.
        paper: The numbers to stand beside ours.
        paper_order: With tasks: what the paper says about the order of the variants.
    """

    about: str = ""
    recipe: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    teachers: tuple[tuple[str, ...], ...] = ()
    tasks: tuple[str, ...] = ()
    grid: dict[str, tuple[int | float | bool | str, ...]] = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    reach: tuple[int, ...] = ()
    best: bool = False
    negative_transfer: bool = False
    paper: Paper | None = None
    left_out: str | None = None
    paper_curves: PaperCurves | None = None
    paper_order: PaperOrder | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if bool(self.teachers) == bool(self.tasks):
            raise ValueError("an experiment has teachers or tasks: name one of them")
        with_teachers = ("recipe", "left_out", "reach", "best", "negative_transfer", "paper", "paper_curves")
        for name in with_teachers if self.tasks else ("grid", "paper_order"):
            if getattr(self, name):
                raise ValueError(f"{name} does not go with {'tasks' if self.tasks else 'teachers'}: leave it out")
        if self.teachers and not self.recipe:
            raise ValueError("'recipe' is missing")
        for variant, own in self.variants.items():
            if (own.get("kind") == "distral") != bool(self.tasks) or ("recipe" in own and self.tasks):
                raise ValueError(f"variants.{variant}: kind distral goes with tasks, other kinds with teachers")
        for key, values in self.grid.items():
            if not values or len(set(map(str, values))) < len(values):
                raise ValueError(f"grid.{key}: name some values, each of them once")
            if key in ("seed", "tasks") or any(key in own for own in (self.overrides, *self.variants.values())):
                raise ValueError(f"grid.{key}: it is set elsewhere in the experiment too")
        return self


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
    for place, variant in _named(found):
        if variant not in found.variants:
            raise UserError(f"{where}: {place}: no variant {variant!r}; {nearest(variant, found.variants)}")
    for variant, settings in found.variants.items():
        kind = str(settings.get("kind", "distill"))
        if kind not in KINDS:
            raise UserError(f"{where}: variants.{variant}.kind: no kind {kind!r}; {nearest(kind, KINDS)}")
        if kind == "transfer":
            _check_transfer(found, variant, where)
    return Path(name).stem, found


def _named(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Every variant that the paper's part of an experiment names, and where."""
    paper, curves, order = experiment.paper, experiment.paper_curves, experiment.paper_order
    for key, rows in (("percent", paper.percent), ("best", paper.best)) if paper else ():
        yield from ((f"paper.{key}.{task}", variant) for task, row in rows.items() for variant in row)
    yield from (("paper_curves.scores", variant) for variant in (curves.scores if curves else ()))
    for pair in order.pairs() if order else ():
        yield from (("paper_order", variant) for variant in (pair.above, pair.below))


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


def counts_steps(experiment: Experiment) -> bool:
    """Whether a variant is budgeted by control steps, so that updates do not compare."""
    return any(KINDS[own.get("kind", "distill")].steps is not None for own in experiment.variants.values())


def left_out_of(experiment: Experiment) -> tuple[str, ...]:
    """The task that is left out, if there is one. Raises UserError if its teacher is not there."""
    return () if experiment.left_out is None else (str(read_card(Path(experiment.left_out))["task"]["name"]),)


def tasks_of(experiment: Experiment) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Each group of teachers -> the names of their tasks, from their cards; no teachers -> the experiment's tasks.

    Raises:
        UserError: a teacher or task that is not there.
    """
    if experiment.tasks:
        return {(): tuple(resolve_task(name, continuous=True).name for name in expand(experiment.tasks))}
    require_teachers(t for group in experiment.teachers for t in group)
    return {group: tuple(str(read_card(Path(t))["task"]["name"]) for t in group) for group in experiment.teachers}


def grid_of(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """What each point of the grid is called -> its dotted settings; one point without a name if there is no grid."""
    keys = list(experiment.grid)
    ends = [key.rpartition(".")[2] for key in keys]
    names = [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]
    found = {}
    for values in itertools.product(*experiment.grid.values()):
        name = " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        found[name] = dict(zip(keys, values, strict=True))
    return found


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
        raise UserError(f"{twice} is named twice, so a variant would have two scores of it; make two files")
    given = {**(choice.settings or {}), **({"total_steps": 0} if choice.steps else {})}
    if clash := next((key for key in experiment.grid if key in given), None):
        raise UserError(f"{clash}: the experiment's grid has it; change the grid in its file")
    runs = [
        _planned(experiment, variant, group, tasks, seed, folder, choice, point)
        for seed in choice.seeds or experiment.seeds
        for group, tasks in groups.items()
        for point in grid_of(experiment)
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
    point: str,
) -> PlannedRun:
    own = dict(experiment.variants[variant])
    kind, recipe = KINDS[own.pop("kind", "distill")], own.pop("recipe", experiment.recipe)
    if kind in (KINDS["distill"], KINDS["distral"]):
        own = {**experiment.overrides, **own, **(choice.settings or {})}
    for key, amount in ((kind.updates, choice.updates), (kind.steps, choice.steps)):
        if key is not None and amount is not None:
            own[key] = amount
    if kind is KINDS["transfer"]:
        maker, target = own.pop("source", None), left_out_of(experiment)[0]
        source = None
        if maker is not None:
            made = _planned(experiment, maker, teachers, tasks, seed, folder, choice, point)
            source = made.folder
            _check_init(variant, own.get("init"), maker, made)
        out = folder / _name(variant, (target,), seed)
        return plan_transfer(recipe, own, source, str(experiment.left_out), target, seed, out, variant)
    if kind is KINDS["distral"]:
        out = folder / "-".join([variant, *point.split(), f"s{seed}"])  # without the tasks: all runs have the same
        own |= grid_of(experiment)[point]
        return replace(plan_run(kind, "", own, (), tasks, seed, out, variant), point=point)
    run = plan_run(kind, recipe, own, teachers, tasks, seed, folder / _name(variant, tasks, seed), variant)
    _check_student(run)
    return run


def _check_init(variant: str, init: str | None, maker: str, made: PlannedRun) -> None:
    """Raises UserError if the source's run will be another than the name of the initialisation says."""
    from polydistill.transferring import require_label

    with _at(variant):
        require_label(init, maker, made.settings.model_dump(mode="json"))


def _check_student(run: PlannedRun) -> None:
    """Raises UserError if there is no such student, or if it is one that multi-task DQN could not train."""
    from polydistill import nets
    from polydistill.nets.sizes import resolve_student

    student = run.settings.model_dump()["student"]
    with _at(run.variant):
        kind, options = resolve_student(student["kind"], student["options"])
        known = nets.settings(kind)
        if wrong := next((key for key in options if key not in known), None):
            raise UserError(f"student {kind!r} has no setting {wrong!r}: {nearest(wrong, known)}")
        if run.arguments[0] == "multitask" and kind == "task_torsos" and not options.get("train_convs"):
            raise UserError("task_torsos has layers that do not learn: use controllers, mimic or task_heads")


@contextmanager
def _at(variant: str) -> Iterator[None]:
    """Say in which variant a mistake is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"variants.{variant}: {error}") from None


def _name(variant: str, tasks: Sequence[str], seed: int) -> str:
    return f"{variant}-{'+'.join(tasks)}-s{seed}"
