"""A run as a command of its own: its resolved settings, the command that makes it, and whether it is finished."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from polydistill.errors import UserError
from polydistill.recipe import DistillRecipe, dotted, read, resolve
from polydistill.settings import Settings

#: Dotted settings that have a flag which must be used: it drops the recipe's options for another choice.
FLAGS = {"student.kind": "--student", "memory.sampler": "--sampler"}

#: Settings that may differ between a run that is there and the one wanted: they do not change what is learnt.
FREE = ("device", "threads")

State = Literal["finished", "cut", "new"]

UPDATES = "schedule.total_updates"


@dataclass(frozen=True)
class Kind:
    """What a variant's run is.

    Attributes:
        verb: The verb of ``polydistill`` that makes it.
        recipes: Folder of its shipped recipes; None: it takes no recipe, and its tasks stand behind the verb.
        games: Folders and tasks of the teachers -> the settings that name them; their flags have the same names.
        updates, steps: Its dotted settings of optimiser steps and of each game's control steps, where it has them.
        model: Gives the form of its recipe.
    """

    verb: str
    recipes: str | None
    games: Callable[[Sequence[str], Sequence[str]], dict[str, list[str]]]
    updates: str | None
    steps: str | None
    model: Callable[[], type[Settings]]

    def settings(self, recipe: str, overrides: Mapping[str, Any]) -> Settings:
        """The recipe with overrides, as the verb resolves its flags.

        Raises:
            UserError: no such recipe, or a setting that cannot be.
        """
        content, where = ({}, self.verb) if self.recipes is None else read(recipe, self.recipes)
        for key in FLAGS:
            group, _, name = key.partition(".")
            own = content.get(group)
            if isinstance(own, dict) and key in overrides and own.get(name) != overrides[key]:
                own["options"] = {}
        return resolve(self.model(), content, where, overrides)


def _multitask() -> type[Settings]:
    from polydistill.multitask import MultitaskRecipe

    return MultitaskRecipe


def _transfer() -> type[Settings]:
    from polydistill.transferring import TransferRecipe

    return TransferRecipe


def _distral() -> type[Settings]:
    from polydistill.distral_training import DistralRecipe

    return DistralRecipe


KINDS = {
    "distill": Kind(
        "distill", "", lambda teachers, _: {"teachers": [*teachers]}, UPDATES, None,
        lambda: DistillRecipe,
    ),
    "multitask": Kind(
        "multitask", "multitask", lambda teachers, tasks: {"tasks": [*tasks], "against": [*teachers]}, None,
        "total_steps", _multitask,
    ),
    "transfer": Kind("transfer", "teach", lambda teachers, tasks: {}, None, "total_steps", _transfer),
    "distral": Kind("distral", None, lambda _, tasks: {"tasks": [*tasks]}, None, "total_steps", _distral),
}  # fmt: skip


@dataclass(frozen=True)
class PlannedRun:
    """One run of an experiment.

    Attributes:
        arguments: What stands after ``polydistill``; ``--resume`` is added where the run was cut.
        settings: The resolved recipe.
        point: Where it stands in the experiment's grid, e.g. ``beta=30 learning_rate=0.0002``; empty without a grid.
    """

    variant: str
    tasks: tuple[str, ...]
    seed: int
    folder: Path
    arguments: tuple[str, ...]
    settings: Settings
    point: str = ""

    @property
    def command(self) -> str:
        return shlex.join(["polydistill", *self.arguments])

    def __str__(self) -> str:
        where = f"{self.point}, " if self.point else ""
        return f"{self.variant}, {' + '.join(self.tasks)}, {where}seed {self.seed}"

    def state(self) -> State:
        """Finished, cut (it has begun and not ended), or new, as its folder says now.

        A run that is wanted longer is cut, if its settings are those that the longer one would have begun with.

        Raises:
            UserError: the folder holds a run with other settings, or its files are damaged.
        """
        about, recipe = self.folder / "run.json", self.folder / "recipe.yaml"
        if not about.is_file():
            return "new"
        try:
            finished = json.loads(about.read_text())["finished"]
            saved = yaml.safe_load(recipe.read_text()) if recipe.is_file() else None
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise UserError(f"{self.folder}: run.json or recipe.yaml is damaged ({error!r}); remove it") from None
        if isinstance(saved, dict):  # parsed, so that a setting newer than the run has its default
            before = dotted(type(self.settings).parse(saved, str(recipe)).model_dump(mode="json"))
            now = dotted(self.settings.model_dump(mode="json"))
            longer = _only_longer(before, now)
            for key in sorted(before.keys() | now.keys()):
                if key not in FREE and before.get(key) != now.get(key) and not (longer and key == UPDATES):
                    raise UserError(
                        f"{self.folder} was made with {key} {before.get(key)!r}, not {now.get(key)!r}: "
                        "remove it or choose another folder"
                    )
            if longer:
                return "cut"
        return "finished" if finished else "cut"


def _only_longer(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run with these dotted settings goes on to more updates as if it had been begun with them."""
    if not (UPDATES in before and UPDATES in now and now[UPDATES] > before[UPDATES]):
        return False
    weighted = before["memory.sampler"] != "uniform" and before["memory.beta"] != before["memory.beta_end"]
    return not before["learner.anneal"] and not weighted


def plan_run(
    kind: Kind,
    recipe: str,
    settings: Mapping[str, Any],
    teachers: Sequence[str],
    tasks: tuple[str, ...],
    seed: int,
    out: Path,
    variant: str,
) -> PlannedRun:
    """One run of ``recipe`` with dotted ``settings`` in the folder ``out``, and the command that makes it.

    Args:
        recipe: Not looked at where the kind has none.

    Raises:
        UserError: a recipe or setting that cannot be.
    """
    left, games = dict(settings), kind.games(teachers, tasks)
    resolved = kind.settings(recipe, {**settings, **games, "seed": seed})
    arguments = [kind.verb, *tasks] if kind.recipes is None else [kind.verb, recipe]
    for key, names in games.items() if kind.recipes is not None else ():
        arguments += [f"--{key}", *names]
    arguments += ["--out", str(out), "--seed", str(seed)]
    for key, flag in FLAGS.items():
        if key in left:
            arguments += [flag, str(left.pop(key))]
    if left:
        arguments += ["--set", *(f"{key}={_text(value)}" for key, value in left.items())]
    return PlannedRun(variant, tasks, seed, out, tuple(arguments), resolved)


def plan_transfer(
    recipe: str,
    settings: Mapping[str, Any],
    source: Path | None,
    against: str,
    task: str,
    seed: int,
    out: Path,
    variant: str,
) -> PlannedRun:
    """One transfer to ``task`` in the folder ``out``, and the command that makes it.

    Args:
        recipe: How it learns: a recipe of ``teach``.
        settings: Dotted settings of :class:`~polydistill.transferring.TransferRecipe`.
        source: Folder of the run or teacher that it starts from, which need not be there yet.
        against: Folder of the task's teacher.

    Raises:
        UserError: a recipe or setting that cannot be.
    """
    from polydistill.transferring import transfer_recipe

    given = {**settings, "against": against, "seed": seed, **({"source": str(source)} if source is not None else {})}
    resolved = transfer_recipe(recipe, task, given)
    arguments = ["transfer", *([str(source)] if source is not None else [])]
    arguments += ["--task", task, "--recipe", recipe, "--against", against, "--out", str(out), "--seed", str(seed)]
    left = dict(settings)
    for key, flag in (("init", "--init"), ("hand_over.head", "--head")):
        if key in left:
            arguments += [flag, str(left.pop(key))]
    if left:
        arguments += ["--set", *(f"{key}={_text(value)}" for key, value in left.items())]
    return PlannedRun(variant, (task,), seed, out, tuple(arguments), resolved)


def _text(value: Any) -> str:
    """A value as YAML on one line, as ``--set`` reads it."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()
