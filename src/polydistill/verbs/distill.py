"""``polydistill distill``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from polydistill.verbs.base import Float, Int, Set, Switch, Text, command, flag


@dataclass(frozen=True)
class Distill:
    """Distil trained teachers into one student, evaluate it against them, write a report."""

    recipe: Positional[Annotated[str, arg(metavar="[RECIPE]")]] = "default"
    """A YAML file, or a recipe that comes with polydistill (demo, default ...). Flags override it."""
    teachers: Annotated[tuple[str, ...], flag("FOLDER ...")] = ()
    """Folders of the teachers, one per task."""
    student: Text = None
    """Network: task_torsos, task_heads, mimic or controllers; or a size of mimic: net1, net2, net3 or amn-large."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/student")
    """Folder of the run."""
    loss: Annotated[str | None, flag("kl|nll|mse|cross_entropy|reverse_kl|js|huber")] = None
    """Objective."""
    temperature: Float = None
    """Divides the teacher's Q-values (0.01 in the papers)."""
    behaviour: Annotated[str | None, flag("teacher|student|mixture")] = None
    """Who plays while experience is collected."""
    memory: Annotated[str | None, flag("SIZE")] = None
    """Bytes for all memories together, for example 8GB."""
    sampler: Text = None
    """How minibatches are drawn: uniform, proportional, ranked or hierarchical."""
    updates: Int = None
    """Optimiser steps."""
    batch_size: Int = None
    """Samples per task in one update."""
    seed: Int = None
    """Root of all randomness."""
    device: Text = None
    """auto, cpu, cuda ..."""
    set: Set = ()
    """Any other setting of the recipe, for example learner.learning_rate=1e-4."""
    track: Literal["none", "tensorboard"] = "none"
    """Where to log beside the run's own files."""
    resume: Switch = False
    """Continue the run in --out."""
    overwrite: Switch = False
    """Replace the run in --out."""
    dry_run: Switch = False
    """Say what would run, sizes and time included, and stop."""

    def overrides(self) -> dict[str, Any]:
        """Dotted settings of the flags that were given."""
        from polydistill.recipe import parse_assignment

        given = {
            "teachers": list(self.teachers) or None,
            "student.kind": self.student,
            "objective.loss": self.loss,
            "objective.temperature": self.temperature,
            "behaviour.who": self.behaviour,
            "memory.size": self.memory,
            "memory.sampler": self.sampler,
            "schedule.total_updates": self.updates,
            "learner.batch_size": self.batch_size,
            "seed": self.seed,
            "device": self.device,
        }
        return {k: v for k, v in given.items() if v is not None} | dict(parse_assignment(text) for text in self.set)

    def run(self) -> int:
        """Exit code."""
        from polydistill.api import distill
        from polydistill.commands import KINDS
        from polydistill.evaluation.scores import format_table
        from polydistill.planning import plan
        from polydistill.recipe import DistillRecipe
        from polydistill.training.callbacks import Callback
        from polydistill.training.progress import Display

        recipe = KINDS["distill"].settings(self.recipe, self.overrides())
        assert isinstance(recipe, DistillRecipe)
        if self.dry_run:
            print(plan(recipe))
            return 0
        watchers: list[Callback] = [Display()]
        if self.track == "tensorboard":
            from polydistill.training.track import TensorBoard

            watchers.append(TensorBoard(self.out / "tensorboard"))
        result = distill(
            recipe, self.out, callbacks=watchers, resume=self.resume, overwrite=self.overwrite, command=command()
        )
        if not result.finished:
            print(f"stopped, with a checkpoint; continue with the same command and --resume ({self.out})")
            return 130
        if result.summary is not None:
            print(format_table(result.summary))
        from polydistill.reporting.page import write_report

        print(f"report: {write_report(self.out)}")
        return 0
