"""What is kept of teachers as ``results/teachers/``: their scores measured again, and the curves of their training."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polydistill.errors import UserError
from polydistill.evaluation.experiment import COMMANDS, README, read_json, replaced, write_command
from polydistill.evaluation.rows import read_csv, write_csv
from polydistill.evaluation.tables import close, fill_tables, opening
from polydistill.evaluation.teacher_scores import SCORES, TEACHERS, TeacherScore
from polydistill.teachers.zoo import CARD

CURVE = "curve.csv"  # in the folder of a teacher that was trained here

STEPS = "control_steps"  # the column of a curve that orders it


def keep_scores(out: Path, scores: Sequence[TeacherScore], blocks: Sequence[list[str]]) -> None:
    """Keep measured teachers: ``scores.csv``, ``command.txt``, and a table in ``README.md``.

    What was kept of the same teachers under the same protocol is replaced; other rows stay.

    Args:
        out: ``results/teachers``; made if it is not there.
        blocks: What ``command.txt`` says of each: :func:`~polydistill.evaluation.experiment.command_block`.

    Raises:
        UserError: the ``scores.csv`` that is there is damaged or of another form, and nothing has changed on disk; or
            the table in the README has no end marker.
    """
    path = out / SCORES
    old = read_csv(path, TeacherScore) if path.exists() else []
    out.mkdir(parents=True, exist_ok=True)
    rows = replaced(old, list(scores), lambda s: (s.teacher, s.protocol))
    write_csv(path, sorted(rows, key=lambda s: (s.protocol, s.teacher)), TeacherScore)
    for block in blocks:
        write_command(out / COMMANDS, block)
    readme, mark = out / README, opening(f".#{TEACHERS}")
    text = readme.read_text() if readme.exists() else f"# {out.resolve().name}\n"
    if mark not in text:
        readme.write_text(f"{text.rstrip()}\n\n{mark}\n{close()}\n\nCommands, commits and machine: `{COMMANDS}`.\n")
    fill_tables(readme)


def require_keepable(out: Path) -> None:
    """Whether :func:`keep_scores` can do its work; for games that should not be played in vain.

    Raises:
        UserError: ``out`` is a file, or holds scores of another form.
    """
    nearest = next(path for path in (out, *out.parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"--out {nearest} is a file: name a folder such as results/teachers")
    if (out / SCORES).exists():
        read_csv(out / SCORES, TeacherScore)


def is_teaching(run: Path) -> bool:
    """Whether a folder is a teacher's, not that of a run with a student's scores."""
    return (run / CARD).is_file() and not (run / "summary.json").is_file()


def keep_curve(run: Path, out: Path, name: str | None = None) -> tuple[Path, int]:
    """Copy a finished teacher's ``curve.csv`` to ``out/<name>.csv``.

    A training that began with a teacher's weights goes on where that one's curve ends: what was kept of it up to there
    stays before it.

    Args:
        run: The teacher's folder.
        name: The file's; the task's if not given.

    Returns:
        The file, and how many rows it has.

    Raises:
        UserError: the teacher is not finished, or one of the curves is damaged. Then nothing has changed on disk.
    """
    card = read_json(run / CARD)
    try:
        began = _began(card["phases"])
        task = str(card["task"]["name"])
        _ = card["scores"]["noop"]["mean"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run / CARD}: not the card of a finished teacher ({error!r})") from None
    if name is not None and Path(name).name != name:
        raise UserError(f"--variant {name!r}: a name without folders")
    path = out / f"{name or task}.csv"
    head, rows = _read(run / CURVE)
    if not rows:
        raise UserError(f"{run / CURVE}: no rows")
    before: list[list[str]] = []
    if began and path.exists():
        kept, older = _read(path)
        if kept != head:
            raise UserError(f"{path}: its columns are not those of {run / CURVE}; move it away to begin a new one")
        at = head.index(STEPS)
        before = [row for row in older if int(row[at]) <= began and row not in rows]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *before, *rows])
    out.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_text(text.getvalue(), newline="")
    os.replace(tmp, path)
    return path, len(before) + len(rows)


def _began(phases: Sequence[dict[str, Any]]) -> int:
    """Control steps behind the weights that this training began with; 0 for fresh ones."""
    return max((int(phase["from_control_steps"]) for phase in phases if "started_from" in phase), default=0)


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a curve; a last line without a line end is a write that was cut."""
    try:
        text = path.read_bytes().decode()
        head, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        at = head.index(STEPS)
        for row in rows:
            if len(row) != len(head):
                raise ValueError(f"expected {len(head)} cells, found {len(row)}")
            int(row[at])
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: not the curve of a training ({error})") from None
    return head, rows
