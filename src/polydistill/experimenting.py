"""Making an experiment: every run is started, resumed or skipped, and recorded as soon as it is finished.

Each run is a command of its own (``polydistill distill ...``) in a process of its own, so the command an experiment
notes makes that run again without the experiment.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Sequence
from pathlib import Path

from polydistill.commands import PlannedRun
from polydistill.errors import UserError
from polydistill.evaluation import distral_recording
from polydistill.evaluation.best import BEST
from polydistill.evaluation.distral_tables import ORDER, TASKS
from polydistill.evaluation.experiment import add_run, sort_experiment, update_readme, write_paper
from polydistill.evaluation.negative_transfer import NEGATIVE_TRANSFER
from polydistill.evaluation.paper_numbers import PAPER, PAPER_BEST, PaperNumber
from polydistill.evaluation.transfer_measures import TRANSFER, About
from polydistill.experiments import Experiment, counts_steps, grid_of, left_out_of, tasks_of, transfers_of
from polydistill.processes import Children
from polydistill.reporting import distral_experiment
from polydistill.reporting.experiment import KEPT, PERCENT_SVG, PICTURES, draw
from polydistill.reporting.transfer import PICTURE, SHOWS, write_transfer

LOCK = ".recording"  # in the folder of the runs: two shells record one after the other

_SAID = {"finished": "is finished", "cut": "goes on", "new": "begins"}


def run_experiment(
    experiment: Experiment, planned: Sequence[PlannedRun], out: Path, say: Callable[[str], None] = lambda text: None
) -> int:
    """Make every planned run that is not finished, and record each in ``out`` as soon as it is.

    A run that fails does not keep the others from being made.

    Returns:
        0; or 130 after SIGINT or SIGTERM, which are passed on to the run: it stops with a checkpoint.

    Raises:
        UserError: a folder holds a run with other settings (nothing has been started then), a run failed (after the
            others were made), or a result cannot be recorded.
    """
    for run in planned:
        run.state()
    failed = []
    with Children() as children:
        for k, run in enumerate(planned, 1):
            state = run.state()  # now: another shell may have made it meanwhile
            say(f"[{k}/{len(planned)}] {run}: {run.folder} {_SAID[state]}")
            if state != "finished" and not children.stopped:
                code = children.start([*run.arguments, *(["--resume"] if state == "cut" else [])]).wait()
                if code and not children.stopped:
                    failed.append(f"{run} (exit code {code})")
                    continue
            if run.state() == "finished":
                record(experiment, run, out)
            if children.stopped:
                say("stopped; the same command continues")
                return 130
    if failed:
        raise UserError(f"{len(failed)} of {len(planned)} runs failed: {'; '.join(failed)}; the same command continues")
    return 0


def record(experiment: Experiment, run: PlannedRun, out: Path) -> None:
    """Put a finished run, the paper's numbers and the pictures into ``out``, and renew its README.

    Raises:
        UserError: the run or the experiment's files are damaged.
    """
    if experiment.tasks:
        _record_agent(experiment, run, out)
        return
    tasks = [name for names in tasks_of(experiment).values() for name in names]
    tasks += left_out_of(experiment)
    with (run.folder.parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, numbers in _papers(experiment).items():
            write_paper(out, numbers, name)
        add_run(run.folder, out, run.variant, experiment.about)
        sort_experiment(out, list(experiment.variants), tasks)
        if about := _transfer(experiment):
            about.write(out)
        shows = {**PICTURES, PERCENT_SVG: KEPT} if about else PICTURES
        pictures = {path.name: shows[path.name] for path in draw(out, counts_steps(experiment))}
        parts = [BEST] if experiment.best else []
        parts += [NEGATIVE_TRANSFER] if experiment.negative_transfer else []
        if about:
            parts.append(TRANSFER)
            pictures |= {PICTURE: SHOWS} if write_transfer(out) else {}
        update_readme(out, pictures=pictures, reach=experiment.reach, parts=parts)


def _papers(experiment: Experiment) -> dict[str, list[PaperNumber]]:
    """File -> the paper's numbers in it."""
    if (paper := experiment.paper) is None:
        return {PAPER: [], PAPER_BEST: []}
    return {
        name: [
            PaperNumber(task, v, x, paper.source, paper.budget.get(v, ""))
            for task, row in rows.items()
            for v, x in row.items()
        ]
        for name, rows in ((PAPER, paper.percent), (PAPER_BEST, paper.best))
    }


def _record_agent(experiment: Experiment, run: PlannedRun, out: Path) -> None:
    order = experiment.paper_order
    (tasks,) = tasks_of(experiment).values()
    with (run.folder.parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        distral_recording.add_run(run.folder, out, run.variant, run.point)
        distral_recording.sort_rows(out, list(experiment.variants), list(grid_of(experiment)), tasks)
        distral_recording.write_claims(out, order.pairs() if order else [])
        pictures = {path.name: distral_experiment.PICTURES[path.name] for path in distral_experiment.draw(out)}
        update_readme(out, experiment.about, pictures, parts=(TASKS, ORDER))


def _transfer(experiment: Experiment) -> About | None:
    """What the tables of a transfer need to know; None for another experiment."""
    variants = transfers_of(experiment)
    if not variants:
        return None
    random = [v for v in variants if experiment.variants[v].get("init") == "random"]
    (task,), paper = left_out_of(experiment), experiment.paper_curves
    if paper is None:
        return About(task, variants, (random or variants)[0])
    return About(task, variants, (random or variants)[0], paper.source, paper.millions, dict(paper.scores))
