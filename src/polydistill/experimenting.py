"""Making an experiment: every run is started, resumed or skipped, and recorded as soon as it is finished.

Each run is a command of its own (``polydistill distill ...``) in a process of its own, so the command an experiment
notes makes that run again without the experiment.
"""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from polydistill.commands import PlannedRun
from polydistill.errors import UserError
from polydistill.evaluation.experiment import add_run, sort_experiment, update_readme, write_paper
from polydistill.evaluation.tables import PaperNumber
from polydistill.experiments import Experiment, tasks_of
from polydistill.reporting.experiment import PICTURES, draw

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
    with _Child() as child:
        for k, run in enumerate(planned, 1):
            state = run.state()  # now: another shell may have made it meanwhile
            say(f"[{k}/{len(planned)}] {run}: {run.folder} {_SAID[state]}")
            if state != "finished":
                code = child.call([*run.arguments, *(["--resume"] if state == "cut" else [])])
                if code and not child.stopped:
                    failed.append(f"{run} (exit code {code})")
                    continue
            if run.state() == "finished":
                record(experiment, run, out)
            if child.stopped:
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
    numbers = []
    if paper := experiment.paper:
        rows = paper.percent.items()
        numbers = [PaperNumber(task, v, percent, paper.source) for task, row in rows for v, percent in row.items()]
    tasks = [name for names in tasks_of(experiment).values() for name in names]
    with (run.folder.parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_paper(out, numbers)
        add_run(run.folder, out, run.variant, experiment.about)
        sort_experiment(out, list(experiment.variants), tasks)
        update_readme(out, pictures={path.name: PICTURES[path.name] for path in draw(out)}, reach=experiment.reach)


class _Child:
    """One ``polydistill`` process at a time, in its own process group: signals reach it through this one, once."""

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None  # the newest; a signal to one that ended does nothing
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Child:
        try:
            for number in (int(signal.SIGINT), int(signal.SIGTERM)):
                self._old[number] = signal.signal(number, self._pass_on)
        except ValueError:
            pass  # not the main thread
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._process is not None:
            self._process.send_signal(number)

    def call(self, arguments: Sequence[str]) -> int:
        """Exit code of ``polydistill`` with these arguments; nothing is started after a stop."""
        if self.stopped:
            return 130
        command = [sys.executable, "-m", "polydistill.cli", *arguments]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0) as process:
            self._process = process
            self._stop_if_asked()  # the signal may have come while the process was being started
            return process.wait()

    def _stop_if_asked(self) -> None:
        if self.stopped and self._process is not None:
            self._process.send_signal(signal.SIGTERM)
