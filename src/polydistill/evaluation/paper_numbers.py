"""What a paper reports, kept beside an experiment's own scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.evaluation.rows import read_csv

PAPER = "paper.csv"
PAPER_BEST = "paper_best.csv"


@dataclass(frozen=True)
class PaperNumber:
    """What a paper reports: the columns of an experiment's ``paper.csv`` and ``paper_best.csv``.

    Attributes:
        percent: The student's score in % of its teacher's; in ``paper_best.csv`` its best in % of the teacher's best.
        source: Paper, table, and what its protocol has that ours has not.
        budget: Updates / control steps of a run in the paper, as a table says it; empty where the paper says neither.
    """

    task: str
    variant: str
    percent: float
    source: str
    budget: str = ""


def read_paper(experiment: Path, name: str = PAPER) -> list[PaperNumber]:
    """The numbers in one of the two files; none where it is not there. Raises UserError if it is damaged."""
    return read_csv(experiment / name, PaperNumber) if (experiment / name).exists() else []
