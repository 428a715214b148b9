"""Experiments kept as ``results/<experiment>/``, filled from finished runs.

``command.txt`` (command, commit, machine of every run), ``scores.csv`` (one row per variant, task, seed and protocol),
``curves.csv`` (the evaluations during training), ``paper.csv`` (what a paper reports) and ``README.md`` (words by hand,
table by :mod:`~polydistill.evaluation.tables`). Only files of a run are read, never live objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from polydistill.errors import UserError
from polydistill.evaluation.curves import AREA, CURVES, REACH, CurvePoint
from polydistill.evaluation.paper_numbers import PAPER, PaperNumber
from polydistill.evaluation.rows import read_csv, read_rows, write_csv
from polydistill.evaluation.tables import Result, close, fill_tables, opening

SCORES, COMMANDS, README = "scores.csv", "command.txt", "README.md"

T = TypeVar("T")


def add_run(run: Path, experiment: Path, variant: str | None = None, words: str = "") -> list[Result]:
    """Add a finished run to an experiment and renew the experiment's README.

    Adding a run again, or another run of its variant, tasks, seed and protocol, replaces what was there. The seed, the
    updates and the control steps are those of the student's last evaluation in the run's ``scores.csv``.

    Args:
        run: A run folder with ``run.json``, ``summary.json``, ``scores.csv`` and, for curves, ``metrics.jsonl``.
        experiment: ``results/<experiment>``; made if it is not there.
        variant: What the tables call this run; by default the kind of student in ``run.json``.
        words: What a new README begins with.

    Returns:
        The rows that were added to the experiment's ``scores.csv``.

    Raises:
        UserError: a file of the run is missing, damaged or of another form. Then nothing has changed on disk.
    """
    about, summary = read_json(run / "run.json"), read_json(run / "summary.json")
    rows = [r for r in read_rows(run / SCORES) if r.variant not in ("teacher", "random")]
    try:
        variant = variant or str(about["student"]["kind"])
        protocol = str(summary["protocol"]["name"])
        rows = [r for r in rows if r.protocol == protocol]
        if not rows:
            raise UserError(
                f"{run / SCORES}: no student's episodes under protocol {protocol!r}; evaluate the run first"
            )
        last = max(rows, key=lambda r: r.updates)
        results = [
            Result(
                variant=variant,
                task=task,
                seed=last.seed,
                updates=last.updates,
                control_steps=last.control_steps,
                protocol=protocol,
                score=_float(scores["score"]),
                teacher_score=_float(scores["teacher"]),
                percent=_float(scores["percent"]),
                parameters=int(about["student"].get("parameters") or 0),
            )
            for task, scores in summary["tasks"].items()
        ]
        curve = _read_curve(run / "metrics.jsonl", variant, last.seed)
        block = command_block(about, f"{variant}, {' + '.join(summary['tasks'])}, seed {last.seed}, {protocol}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{run}: run.json, summary.json or metrics.jsonl lacks something ({error!r})") from None
    for name in (README, COMMANDS):
        _text(experiment / name)  # that it can be read, before anything is written
    old = _read(experiment / SCORES, Result)
    old_curve = _read(experiment / CURVES, CurvePoint)
    experiment.mkdir(parents=True, exist_ok=True)
    write_csv(experiment / SCORES, replaced(old, results, lambda r: (r.variant, r.task, r.seed, r.protocol)), Result)
    write_csv(experiment / CURVES, replaced(old_curve, curve, lambda p: (p.variant, p.task, p.seed)), CurvePoint)
    write_command(experiment / COMMANDS, block)
    update_readme(experiment, words)
    return results


def update_readme(
    experiment: Path,
    words: str = "",
    pictures: Mapping[str, str] | None = None,
    reach: Iterable[int] = (),
    parts: Iterable[str] = (),
) -> None:
    """Renew the table in the experiment's README; begin the README, or add the table to it, where there is none.

    Args:
        words: What a new README begins with.
        reach: Per cents of teacher; for each a table of the updates it took is added, and with them one of the mean
            % of teacher over training.
        pictures: Files in the experiment's folder -> what they show; those the README does not name yet are added.
        parts: Further tables, by what stands behind the # of their markers.

    Raises:
        UserError: ``scores.csv`` is missing or damaged, or a table's end marker is.
    """
    path = experiment / README
    old = _text(path)
    text = old or "\n\n".join([f"# {experiment.resolve().name}", *filter(None, [words.strip()])]) + "\n"
    if opening(".") not in text:
        text = f"{text.rstrip()}\n\n{opening('.')}\n{close()}\n\nCommands, commits and machine: `{COMMANDS}`.\n"
    levels = [f"{REACH}{percent}" for percent in reach]
    for part in (*parts, *levels, *([AREA] if levels else [])):
        if (mark := opening(f".#{part}")) not in text:
            text = f"{text.rstrip()}\n\n{mark}\n{close()}\n"
    for name, shows in (pictures or {}).items():
        if f"({name})" not in text:
            text = f"{text.rstrip()}\n\n![{shows}]({name})\n"
    if text != old:
        path.write_text(text)
    fill_tables(path)


def write_paper(experiment: Path, numbers: Iterable[PaperNumber], name: str = PAPER) -> None:
    """Keep what a paper reports beside the experiment's own scores; no numbers: no file."""
    rows = list(numbers)
    if not rows:
        (experiment / name).unlink(missing_ok=True)
        return
    experiment.mkdir(parents=True, exist_ok=True)
    write_csv(experiment / name, rows, PaperNumber)


def sort_experiment(experiment: Path, variants: Sequence[str], tasks: Sequence[str]) -> None:
    """Put the rows of an experiment in a given order, whichever run finished first; what is not named goes last.

    Raises:
        UserError: ``scores.csv`` or ``curves.csv`` is damaged.
    """
    by_variant, by_task = ({name: i for i, name in enumerate(names)} for names in (variants, tasks))

    def place(row: Result | CurvePoint) -> tuple[int, int, int]:
        return by_variant.get(row.variant, len(variants)), row.seed, by_task.get(row.task, len(tasks))

    write_csv(experiment / SCORES, sorted(_read(experiment / SCORES, Result), key=place), Result)
    write_csv(experiment / CURVES, sorted(_read(experiment / CURVES, CurvePoint), key=place), CurvePoint)


def replaced(old: Iterable[T], new: list[T], key: Callable[[T], object]) -> list[T]:
    """``old`` without what has the ``key`` of one of ``new``, then ``new``."""
    gone = {key(row) for row in new}
    return [row for row in old if key(row) not in gone] + new


def _read(path: Path, kind: type[T]) -> list[T]:
    return read_csv(path, kind) if path.exists() else []


def _text(path: Path) -> str:
    """A file's text; empty where there is none. Raises UserError if it cannot be read as text."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None


def read_json(path: Path) -> Any:
    """A file of a run. Raises UserError if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except OSError:
        raise UserError(f"{path}: no such file; is {path.parent} the folder of a finished run?") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error})") from None


def read_lines(path: Path, kind: str) -> list[Any]:
    """Every complete line of a ``metrics.jsonl`` of this kind; one without a line end is a write that was cut."""
    text = _text(path)
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.strip()]
    return [line for line in lines if line.get("kind") == kind]


def _read_curve(path: Path, variant: str, seed: int) -> list[CurvePoint]:
    return [
        CurvePoint(
            variant,
            task,
            seed,
            int(line["updates"]),
            int(line["control_steps"]),
            *(_float(scores.get(key)) for key in ("score", "low", "high", "teacher", "percent")),
        )
        for line in read_lines(path, "eval")
        for task, scores in line["tasks"].items()
    ]


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def command_block(about: dict[str, Any], title: str) -> list[str]:
    """What ``command.txt`` says of a run, from its ``run.json``: the commits of all its sittings where they differ."""
    machine = about["machine"]
    made = list(dict.fromkeys(map(_commit, about.get("sittings") or [about])))
    commits = _commit(about) if len(made) < 2 else ", then ".join(made)
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['ram_gb']} GB, {machine['device']}"
    return [
        f"# {title}",
        f"# commit {commits}; {where}; started {about['started']}, {float(about['wall_seconds']):.0f} s",
        str(about["command"]).replace("\n", " "),
    ]


def _commit(about: Mapping[str, Any]) -> str:
    return f"{about['commit']}{' with uncommitted changes' if about['dirty'] else ''}"


def write_command(path: Path, block: list[str]) -> None:
    """Add a block, or replace the one with its first line, which says which run it is; a blank line is between two."""
    old = _text(path).split("\n\n")
    blocks = [b.strip("\n") for b in old if b.strip() and b.strip().splitlines()[0] != block[0]]
    path.write_text("\n\n".join([*blocks, "\n".join(block)]) + "\n")
