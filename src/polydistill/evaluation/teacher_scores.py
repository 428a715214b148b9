"""Teachers measured again from their files: one row each, the random policy and the card's score beside it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polydistill.errors import UserError
from polydistill.evaluation.markdown import escape
from polydistill.evaluation.markdown import number as marked
from polydistill.evaluation.markdown import row as markdown_row
from polydistill.evaluation.plain import grid, interval, number
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.scores import Summary, protocol_in_words

SCORES = "scores.csv"

TEACHERS = "teachers"  # behind the # of a table's marker


@dataclass(frozen=True)
class TeacherScore:
    """One teacher under one protocol: the columns of ``results/teachers/scores.csv``. Scores are mean raw returns.

    Attributes:
        teacher: Its folder's name.
        episodes: Full games behind ``score``.
        seed: Root of their starts and random actions.
        low, high: The 95 % bootstrap interval; NaN for a single game.
        random: A uniformly random policy's score.
        random_episodes: Full games behind ``random``; 0: it is what the card says.
        card: The card's score under the same protocol; NaN if it says none.
    """

    teacher: str
    task: str
    protocol: str
    episodes: int
    seed: int
    score: float
    low: float
    high: float
    random: float
    random_episodes: int
    card: float

    @property
    def random_from(self) -> str:
        """Where ``random`` comes from, in words."""
        return f"{self.random_episodes} games" if self.random_episodes else "card"


def teacher_score(name: str, summary: Summary, *, random_episodes: int, card: float | None) -> TeacherScore:
    """The row of a teacher from the summary of its games; it plays one task."""
    ((task, scores),) = summary.tasks.items()
    return TeacherScore(
        teacher=name,
        task=task,
        protocol=str(summary.protocol["name"]),
        episodes=scores.episodes,
        seed=int(summary.protocol["seed"]),
        score=scores.score,
        low=scores.low,
        high=scores.high,
        random=scores.random,
        random_episodes=random_episodes,
        card=math.nan if card is None else card,
    )


def format_teachers(scores: Sequence[TeacherScore], protocol: Mapping[str, Any], width: int = 80) -> str:
    """Teachers measured under one protocol as plain ASCII text of at most ``width`` columns, without a line end.

    Args:
        protocol: What :meth:`~polydistill.evaluation.protocol.Protocol.describe` says.
    """
    head = ["teacher", "score", "95 % interval", "random", "random from", "on its card"]
    body = [
        [
            s.teacher,
            number(s.score),
            interval(s.low, s.high),
            number(s.random),
            s.random_from,
            number(s.card),
        ]
        for s in scores
    ]
    note = (
        f"{protocol_in_words(protocol)} random: the uniformly random policy's score, as the teacher's card says or "
        "from so many games played now."
    )
    return "\n".join([*grid(head, body, width), "", *textwrap.wrap(note, width)])


def teachers_table(folder: Path) -> str:
    """The Markdown table of what was measured, from the folder's ``scores.csv``.

    Raises:
        UserError: the file is missing, damaged or empty.
    """
    scores = read_csv(folder / SCORES, TeacherScore)
    if not scores:
        raise UserError(f"{folder / SCORES}: no teacher was measured yet")
    lines = [
        markdown_row(["teacher", "protocol", "games", "score", "95 % interval", "random policy", "on its card"]),
        markdown_row(["---", "---", "---:", "---:", "---:", "---:", "---:"]),
    ]
    for s in scores:
        between = "–" if math.isnan(s.low) else f"{marked(s.low)} to {marked(s.high)}"
        random = f"{marked(s.random)} ({s.random_from})"
        cells = [escape(s.teacher), s.protocol, str(s.episodes), marked(s.score), between, random, marked(s.card)]
        lines.append(markdown_row(cells))
    note = f"Full games with raw scores, played from the teachers' files; from [{SCORES}]({SCORES})."
    return "\n".join([*lines, "", note])
