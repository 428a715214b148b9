"""``polydistill record``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from polydistill.verbs.base import File, Text


@dataclass(frozen=True)
class Record:
    """Keep a finished run under results/ and renew the tables of a Markdown file from what is kept.

    Of a teacher the curve of its training is kept, results/teachers/TASK.csv, and all that are there
    are drawn as curves.svg.
    """

    run_folder: Positional[Annotated[Path, arg(metavar="RUN")]]
    """Folder of the run, or of a teacher that was trained here."""
    experiment: Positional[Annotated[Path, arg(metavar="EXPERIMENT")]]
    """Folder of the experiment, for example results/demo; for teachers results/teachers."""
    variant: Text = None
    """What the experiment calls this run; the student's network if not given, and a teacher's task."""
    readme: File = None
    """Markdown file whose tables are renewed too."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.evaluation.tables import fill_tables
        from polydistill.evaluation.teacher_records import is_teaching, keep_curve
        from polydistill.reporting.teachers import write_teacher_curves

        if is_teaching(self.run_folder):
            path, rows = keep_curve(self.run_folder, self.experiment, self.variant)
            print(f"{self.run_folder}: {rows} rows -> {path}")
            write_teacher_curves(self.experiment)
        else:
            self._add()
        if self.readme is not None:
            print(f"{self.readme}: {'renewed' if fill_tables(self.readme) else 'unchanged'}")
        return 0

    def _add(self) -> None:
        from polydistill.evaluation.experiment import add_run
        from polydistill.reporting.page import write_picture

        for result in add_run(self.run_folder, self.experiment, self.variant):
            score = f"{result.score:.1f} ({result.percent:.1f} % of teacher)"
            print(f"{result.variant} {result.task} seed {result.seed}: {score}")
        if write_picture(self.run_folder, self.experiment / "scores.svg") is None:
            print("no picture: the teachers' scores are 0 or less, and there are no per cents of those")
