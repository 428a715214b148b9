"""``polydistill mimic-convergence``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from polydistill.verbs.base import command


@dataclass(frozen=True)
class MimicConvergence:
    """Does Actor-Mimic converge? Its Theorem 1 on random problems: table, curves and pictures. Half a minute."""

    out: Annotated[Path, arg(metavar="FOLDER")] = Path("results/parisotto-convergence")
    """Folder of the results."""
    problems: Annotated[int, arg(metavar="N")] = 20
    """Random problems, with seeds 0, 1, 2 ..."""
    starts: Annotated[int, arg(metavar="N")] = 10
    """First policies of each."""
    rounds: Annotated[int, arg(metavar="N")] = 300
    """Rounds after which a start that still moves is given up."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.evaluation.mimic_convergence import measure_all
        from polydistill.reporting.mimic_convergence import write
        from polydistill.training.folder import provenance

        about = provenance(command(), "cpu")
        measure_all(self.out, self.problems, self.starts, self.rounds, about, say=lambda text: print(text, flush=True))
        for path in write(self.out):
            print(path)
        return 0
