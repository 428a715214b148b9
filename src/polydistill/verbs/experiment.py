"""``polydistill experiment``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from polydistill.errors import UserError
from polydistill.verbs.base import File, Int, Set, Switch, flag


@dataclass(frozen=True)
class Experiment:
    """Make every run of a comparison; keep scores, curves and table under results/. The same command goes on."""

    experiment: Positional[Annotated[str, arg(metavar="EXPERIMENT")]]
    """A YAML file, or an experiment that comes with polydistill (rusu-losses, rusu-compression ...)."""
    runs: File = None
    """Folder of the runs; runs/EXPERIMENT if not given."""
    out: File = None
    """Folder of the results; results/EXPERIMENT if not given."""
    only: Annotated[tuple[str, ...], flag("VARIANT ...")] = ()
    """Only these variants."""
    tasks: Annotated[tuple[str, ...], flag("NAME ...")] = ()
    """Only the runs in which one of these tasks is."""
    seeds: Annotated[tuple[int, ...], flag("N ...")] = ()
    """These seeds, not the experiment's."""
    updates: Int = None
    """Optimiser steps of every distillation."""
    steps: Int = None
    """Control steps of each game of every run that is budgeted by them (kinds multitask, transfer, distral)."""
    set: Set = ()
    """Any other setting of every distillation and run of Distral, for example evaluation.final_episodes=100."""
    shard: Annotated[str, arg(metavar="I/N")] = "0/1"
    """Of every N runs the one at place I: shells with 0/2 and 1/2 share the work."""
    dry_run: Switch = False
    """List the runs, their state and their commands, and stop."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.evaluation.tables import experiment_table
        from polydistill.experimenting import run_experiment
        from polydistill.experiments import Choice, load_experiment, plan_runs
        from polydistill.recipe import parse_assignment

        name, experiment = load_experiment(self.experiment)
        settings = dict(parse_assignment(text) for text in self.set)
        choice = Choice(self.only, self.tasks, self.seeds, self.updates, self.steps, settings, _shard(self.shard))
        planned = plan_runs(experiment, self.runs or Path("runs") / name, choice)
        if self.dry_run:
            states = [run.state() for run in planned]
            for run, state in zip(planned, states, strict=True):
                print(f"{state:8}  {run}\n          {run.command}")
            print(f"{name}: {len(planned)} runs, {states.count('finished')} finished")
            return 0
        out = self.out or Path("results") / name
        code = run_experiment(experiment, planned, out, say=lambda text: print(text, flush=True))
        if code == 0 and planned:
            print(f"{experiment_table(out, str(out))}\n\nresults: {out / 'README.md'}")
        return code


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and int(n) >= 1 and int(i) <= int(n)):
        raise UserError(f"--shard {text!r}: write I/N, for example 0/2 in one shell and 1/2 in the other")
    return int(i), int(n)
