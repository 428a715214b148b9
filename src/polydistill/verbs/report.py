"""``polydistill report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from polydistill.verbs.base import File, Text


@dataclass(frozen=True)
class Report:
    """Write one self-contained report.html about a run."""

    run_folder: Positional[Annotated[Path, arg(metavar="RUN")]]
    """Folder of the run."""
    out: File = None
    """File to write; RUN/report.html if not given."""
    states: Text = None
    """Instead of the page one picture: which states of this task the student met in its first and in its last
    evaluation. It goes to --out, RUN/states-TASK.svg if not given."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.reporting.page import write_report, write_states

        if self.states is not None:
            print(write_states(self.run_folder, self.states, self.out or self.run_folder / f"states-{self.states}.svg"))
            return 0
        print(write_report(self.run_folder, self.out))
        return 0
