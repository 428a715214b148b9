"""Tables of an experiment with Distral's agents: where each stands, its tasks one by one, and the paper's claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.claims import MEASURES, Claim, claims_table
from polydistill.evaluation.curves import CURVES
from polydistill.evaluation.distral_results import SCORES, AgentScore, Standing, mean, read_results, standings
from polydistill.evaluation.markdown import escape, number, row, span
from polydistill.evaluation.rows import read_csv
from polydistill.ops.scores import percent_of_teacher

TASKS, ORDER = "tasks", "order"  # after the # of a table's marker
PAPER = "paper.csv"
BASELINE = "A3C"  # the single-task agent: 100 %


def agents_table(experiment: Path, link: str = ".") -> str:
    """One line per agent: best point of the grid, speed, final score, that against A3C's, distilled policy, all runs.

    Args:
        link: The experiment's folder as the Markdown file links to it.

    Raises:
        UserError: ``scores.csv`` or ``curves.csv`` is missing or damaged, or there is no score.
    """
    scores, found = _standings(experiment)
    base = next((s for s in found if s.variant == BASELINE), None)
    grid = any(s.best for s in found)
    head = ["agent", *(["best settings"] if grid else []), MEASURES["learning"], MEASURES["final"]]
    head += [f"against {BASELINE}"] if base else []
    head += [MEASURES["distilled"], MEASURES["all runs"], "parameters"]
    lines = [row(head), row(["---", *(["---"] if grid else []), *["---:"] * (len(head) - 1 - grid)])]
    for s in found:
        cells = [escape(s.variant), *([escape(s.best)] if grid else []), score(s.learning), _spread(s.final.values())]
        cells += [_against(s, base)] if base else []
        runs = f"{_spread(s.runs.values())} ({len(s.runs)})"
        lines.append(row([*cells, _spread(s.distilled.values()), runs, f"{s.parameters:,}"]))
    return "\n".join([*lines, "", _note(scores, found, grid, base is not None), *_from(link, SCORES, CURVES)])


def tasks_table(experiment: Path) -> str:
    """One line per task, one column per agent: final score at the agent's best point, and that of pi_0 alone.

    Raises:
        UserError: as :func:`agents_table`.
    """
    scores, found = _standings(experiment)
    lines = [row(["task", *(escape(s.variant) for s in found)]), row(["---", *["---:"] * len(found)])]
    for task in dict.fromkeys(s.task for s in scores):
        cells = []
        for s in found:
            alone = s.tasks_distilled.get(task, {})
            cells.append(_spread(s.tasks.get(task, {}).values()) + (f" / {_spread(alone.values())}" if alone else ""))
        lines.append(row([escape(task), *cells]))
    note = "Final score of the task's policy / of the distilled policy alone, at each agent's best settings."
    return "\n".join([*lines, "", note, *_from(".", SCORES)])


def order_table(experiment: Path) -> str:
    """The agents from best to worst by each measure; and the claims in ``paper.csv``, if there are any.

    Raises:
        UserError: as :func:`agents_table`, or ``paper.csv`` is damaged.
    """
    _, found = _standings(experiment)
    values = {key: {s.variant: s.measures()[key] for s in found} for key in MEASURES}
    lines = [row(["measure", "from best to worst"]), row(["---", "---"])]
    for key, name in MEASURES.items():
        known = sorted(((v, x) for v, x in values[key].items() if not math.isnan(x)), key=lambda pair: -pair[1])
        lines.append(row([name, escape(", ".join(f"{v} {score(x)}" for v, x in known)) or "–"]))
    claims = read_csv(experiment / PAPER, Claim) if (experiment / PAPER).exists() else []
    if not claims:
        return "\n".join(lines)
    told = "; ".join(dict.fromkeys(c.source for c in claims))
    note = f"Pairs of agents in which the first one's mean is above the second one's. Paper: {told}."
    return "\n".join([*lines, "", claims_table(claims, values), "", note, *_from(".", PAPER)])


def percent_of(standing: Standing, base: Standing) -> float:
    """Mean over tasks of 100 times final score over ``base``'s; NaN if one of these is not above 0, or missing."""
    own, theirs = ({t: mean(seeds.values()) for t, seeds in s.tasks.items()} for s in (standing, base))
    return mean(float(percent_of_teacher(own.get(t, math.nan), x)) for t, x in theirs.items())


def score(value: float) -> str:
    """Two decimals below 10, otherwise as in every table."""
    return f"{round(value, 2) + 0.0:.2f}" if abs(value) < 10 else number(value)  # + 0.0: no -0.00


def _standings(experiment: Path) -> tuple[list[AgentScore], list[Standing]]:
    scores, points = read_results(experiment)
    if not scores:
        raise UserError(f"{experiment / SCORES}: no results yet; add a finished run")
    return scores, standings(scores, points)


def _note(scores: Sequence[AgentScore], found: Sequence[Standing], grid: bool, base: bool) -> str:
    tasks, seeds = len({s.task for s in scores}), len({s.seed for s in scores})
    text = [f"Returns, mean over {tasks} task{'s' if tasks > 1 else ''}"]
    text[0] += f" ± standard deviation over {seeds} seeds." if seeds > 1 else ", one seed."
    text.append(f"{MEASURES['learning'].capitalize()}: the training return's mean over the whole training.")
    if grid:
        unknown = any(math.isnan(s.learning) for s in found)
        rest = "; the first ones where no training episode has ended" if unknown else ""
        text.append(f"Best settings: those with the largest, as in the paper{rest}.")
    text.append(f"All runs: final scores{' of all settings' if grid else ''} and seeds, ± over (so many) runs.")
    if base:
        text.append(f"Against {BASELINE}: % of its final score at its best settings, task by task, then the mean; and")
        text.append("the difference of the means, which still says something where scores are near 0.")
    steps, protocols = span([s.control_steps for s in scores]), ", ".join(dict.fromkeys(s.protocol for s in scores))
    text.append(f"Protocol {protocols}; {steps} control steps of each task.")
    if len({len(s.runs) for s in found}) > 1:
        text.append("Some agents have fewer runs than others.")
    return " ".join(text)


def _from(link: str, *files: str) -> list[str]:
    base = "" if link == "." else f"{link.rstrip('/')}/"
    return [f"From {', '.join(f'[{base}{name}]({base}{name})' for name in files)}."]


def _against(standing: Standing, base: Standing) -> str:
    percent = percent_of(standing, base)
    lead = mean(standing.final.values()) - mean(base.final.values())
    return f"{'–' if math.isnan(percent) else f'{percent:.0f} %'}, {'+' if lead > 0 else ''}{score(lead)}"


def _spread(values: Iterable[float]) -> str:
    array = np.fromiter(values, np.float64)
    spread = f" ± {score(float(array.std(ddof=1)))}" if len(array) > 1 else ""
    return f"{score(mean(array))}{spread}"
