"""``polydistill report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from polydistill.verbs.base import File


@dataclass(frozen=True)
class Report:
    """Write one self-contained report.html about a run."""

    run_folder: Positional[Annotated[Path, arg(metavar="RUN")]]
    """Folder of the run."""
    out: File = None
    """File to write; RUN/report.html if not given."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.reporting.page import write_report

        print(write_report(self.run_folder, self.out))
        return 0
