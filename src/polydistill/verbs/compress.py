"""``polydistill compress``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from polydistill.errors import UserError
from polydistill.verbs.base import Set, Switch, Text, flag


@dataclass(frozen=True)
class Compress:
    """Find the smallest student that keeps a share of its teachers' scores. The same command goes on after a stop."""

    teachers: Positional[Annotated[tuple[Path, ...], flag("FOLDER ...")]]
    """Folders of teachers; several: one student for all of them."""
    keep: Annotated[float, arg(metavar="PERCENT")] = 95.0
    """% of the teacher's score that the student has to reach; of several tasks, the geometric mean."""
    rule: Annotated[Literal["mean", "low"], arg(metavar="mean|low")] = "mean"
    """mean: the percentage itself counts; low: the lower end of its 95 % interval."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/compress")
    """Folder of the runs, the table (pareto.md) and the winner (student)."""
    sizes: Annotated[tuple[str, ...], flag("SIZE ...")] = ()
    """Percentages of the teacher's parameters and names (50 net1 12 net2 net3 2 1)."""
    all: Switch = False
    """Make every size, not only those that halving the ladder asks for."""
    recipe: Annotated[str, arg(metavar="RECIPE")] = "rusu"
    """A YAML file, or a recipe that comes with polydistill; its student is replaced."""
    updates: Annotated[int, arg(metavar="N")] = 30_000
    """Optimiser steps of each size."""
    seed: Annotated[int, arg(metavar="N")] = 1
    """Root of all randomness."""
    device: Text = None
    """auto, cpu, cuda ..."""
    set: Set = ()
    """Any other setting of the recipe, for example evaluation.final_episodes=100."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.compressing import compress
        from polydistill.recipe import parse_assignment
        from polydistill.training.progress import Display

        settings = dict(parse_assignment(text) for text in self.set)
        found = compress(
            [str(t) for t in self.teachers],
            self.out,
            keep=self.keep,
            rule=self.rule,
            sizes=self.sizes,
            every=self.all,
            recipe=self.recipe,
            settings={
                "schedule.total_updates": self.updates,
                **({} if self.device is None else {"device": self.device}),
                **settings,
            },
            seed=self.seed,
            callbacks=[Display()],
            say=lambda text: print(text, flush=True),
        )
        if not found.finished:
            print("stopped, with a checkpoint; the same command continues")
            return 130
        print((self.out / "pareto.md").read_text())
        if found.winner is None:
            name, value = found.best
            raise UserError(
                f"no size keeps {self.keep:g} %: the best, {name}, has {value:.1f} % ({self.rule}); the table is in "
                f"{self.out / 'pareto.md'}; try more --updates, larger --sizes or a lower --keep"
            )
        print(f"{found.winner}: {self.out / 'student'}")
        return 0
