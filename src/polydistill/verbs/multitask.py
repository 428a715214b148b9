"""``polydistill multitask``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from polydistill.verbs.base import Int, Set, Switch, Text, command, flag


@dataclass(frozen=True)
class Multitask:
    """Train one network on several games with DQN, without teachers: the baseline of distillation."""

    recipe: Positional[Annotated[str, arg(metavar="[RECIPE]")]] = "small"
    """A YAML file, or small or multi-dqn. Flags override it."""
    tasks: Annotated[tuple[str, ...], flag("NAME ...")] = ()
    """Games, for example pong freeway breakout."""
    student: Text = None
    """Network: controllers, mimic (MDQN) or task_heads (MCDQN); or a size of mimic: net1, net2, net3 or amn-large."""
    against: Annotated[tuple[str, ...], flag("FOLDER ...")] = ()
    """Teachers to compare with; they take no part in the training."""
    steps: Int = None
    """Control steps of each game (one is four frames)."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/multitask")
    """Folder of the run."""
    seed: Int = None
    """Root of all randomness."""
    device: Text = None
    """auto, cpu, cuda ..."""
    threads: Int = None
    """Threads of torch and of the emulators; 0: one per core."""
    set: Set = ()
    """Any other setting of the recipe, for example dqn.learning_rate=1e-4."""
    resume: Switch = False
    """Continue the run in --out."""
    overwrite: Switch = False
    """Replace the run in --out."""

    def overrides(self) -> dict[str, Any]:
        """Dotted settings of the flags that were given."""
        from polydistill.recipe import parse_assignment

        given = {
            "tasks": list(self.tasks) or None,
            "against": list(self.against) or ([] if self.tasks else None),  # the recipe's are of the recipe's games
            "student.kind": self.student,
            "total_steps": self.steps,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
        }
        return {k: v for k, v in given.items() if v is not None} | dict(parse_assignment(text) for text in self.set)

    def run(self) -> int:
        """Exit code."""
        from polydistill.commands import KINDS
        from polydistill.evaluation.scores import format_table
        from polydistill.multitask import MultitaskRecipe, multitask
        from polydistill.reporting.page import write_report
        from polydistill.training.multi_records import Lines

        recipe = KINDS["multitask"].settings(self.recipe, self.overrides())
        assert isinstance(recipe, MultitaskRecipe)
        lines = Lines(recipe.total_steps * len(recipe.tasks))
        result = multitask(
            recipe, self.out, callbacks=[lines], resume=self.resume, overwrite=self.overwrite, command=command()
        )
        if not result.finished:
            print(f"stopped, with a checkpoint; continue with the same command and --resume ({self.out})")
            return 130
        if result.summary is not None:
            print(format_table(result.summary))
        print(f"report: {write_report(self.out)}")
        return 0
