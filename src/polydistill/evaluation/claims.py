"""What a paper reports, as an experiment's file has it; and its claims about an order, held against ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from polydistill.evaluation.markdown import escape, row
from polydistill.settings import Settings

Measure = Literal["learning", "final", "all runs", "distilled"]

#: Measure -> what a table calls it; see :class:`~polydistill.evaluation.distral_results.Standing`.
MEASURES: dict[str, str] = {
    "learning": "learning speed",
    "final": "final score",
    "all runs": "all runs",
    "distilled": "distilled policy alone",
}


@dataclass(frozen=True)
class Claim:
    """One pair of a claim: the columns of ``paper.csv`` in an experiment with tasks.

    Attributes:
        says: The claim in words.
        measure: A key of :data:`MEASURES`.
        above, below: Two variants.
        source: Paper and section.
    """

    says: str
    measure: str
    above: str
    below: str
    source: str


class Paper(Settings):
    """A paper's numbers.

    Attributes:
        source: Paper, table and what differs in its protocol.
        percent: Task -> variant -> % of teacher, of the last evaluations where the paper has several.
        budget: Variant -> updates / control steps of a run in the paper, as the table says it.
        best: Task -> variant -> best evaluation in % of the teacher's best.
    """

    source: str
    percent: dict[str, dict[str, float]]
    budget: dict[str, str] = Field(default_factory=dict)
    best: dict[str, dict[str, float]] = Field(default_factory=dict)


class PaperCurves(Settings):
    """A paper's learning curves of the game that is left out.

    Attributes:
        source: Paper, table and what differs.
        millions: Control steps, in millions.
        scores: Variant -> scores at those.
    """

    source: str
    millions: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        for variant, scores in self.scores.items():
            if len(scores) != len(self.millions):
                raise ValueError(f"scores.{variant}: {len(scores)} numbers for {len(self.millions)} of millions")
        return self


class Saying(Settings):
    """A claim in an experiment's file: ``order`` has lines as ``A, B > C, D``, each of A, B above each of C, D."""

    says: str
    measure: Measure
    order: tuple[str, ...] = Field(min_length=1)

    @field_validator("order")
    @classmethod
    def _two_sides(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        for line in lines:
            if len(sides := line.split(">")) != 2 or not all(map(str.strip, sides)):
                raise ValueError(f"{line!r}: write A, B > C, D")
        return lines


class PaperOrder(Settings):
    """``source`` names paper and section."""

    source: str
    claims: tuple[Saying, ...]

    def pairs(self) -> list[Claim]:
        """Every pair of every claim."""
        return [
            Claim(c.says, c.measure, above.strip(), below.strip(), self.source)
            for c in self.claims
            for line in c.order
            for above in line.split(">")[0].split(",")
            for below in line.split(">")[1].split(",")
        ]


def claims_table(claims: Iterable[Claim], values: Mapping[str, Mapping[str, float]]) -> str:
    """The Markdown table of claims: in how many pairs each holds, and the pairs in which it does not.

    Args:
        values: Measure -> variant -> its mean. Pairs that lack one of the two, or NaN, are not counted.
    """
    grouped: dict[tuple[str, str], list[Claim]] = {}
    for c in claims:
        grouped.setdefault((c.says, c.measure), []).append(c)
    lines = [row(["the paper says", "measure", "holds in", "but not"]), row(["---", "---", "---:", "---"])]
    for (says, measure), own in grouped.items():
        found = {(c.above, c.below): _lead(values.get(measure, {}), c) for c in own}
        known = {pair: lead for pair, lead in found.items() if not math.isnan(lead)}
        not_so: dict[str, list[str]] = {}
        for (above, below), lead in known.items():
            if lead <= 0:
                not_so.setdefault(above, []).append(below)
        count = f"{sum(lead > 0 for lead in known.values())} of {len(known)}" if known else "–"
        told = "; ".join(f"{above} over {', '.join(below)}" for above, below in not_so.items())
        lines.append(row([escape(says), MEASURES.get(measure, measure), count, escape(told)]))
    return "\n".join(lines)


def _lead(values: Mapping[str, float], claim: Claim) -> float:
    return values.get(claim.above, math.nan) - values.get(claim.below, math.nan)
