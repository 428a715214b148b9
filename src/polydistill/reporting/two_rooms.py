"""The two rooms: Figure 3 of Teh et al. 2017 and a table, from the files of :mod:`polydistill.evaluation.two_rooms`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from polydistill.algorithms.tabular.two_rooms import ACTIONS, MOVES, STEP
from polydistill.errors import UserError
from polydistill.evaluation.markdown import row
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.two_rooms import (
    CURVES,
    CURVES_SVG,
    DISTRAL,
    HORIZON,
    OWN,
    PI0,
    PI0_SVG,
    README,
    SCORES,
    SEPARATE,
    Choice,
    Point,
    SeedScore,
)
from polydistill.ops.scores import bootstrap_interval
from polydistill.reporting.plots import WIDE, label_ends, short_number
from polydistill.reporting.svg import INK, MUTED, RULE, STUDENT, TASKS, axes, style, to_svg, write_pictures

OPEN, CLOSE = "<!-- numbers -->", "<!-- /numbers -->"
CAPTION = {DISTRAL: "Distral", SEPARATE: "separate", OWN: "own prior"}  # at the curves
BAND = 500  # resamples for each point of a curve
LIKELY = 0.5  # from this probability on an action is drawn strong

WORDS = """# {name}

Distral with tables (Teh et al. 2017, section 4.1 and Figure 3): two rooms and a corridor, tasks that differ in their
goal, states of cell, previous action and previous reward. *Distral* takes turns at soft Q-learning of every task and
distilling one policy π₀ from what all of them did; *separate soft Q-learning* is the same with a π₀ that stays uniform.
"""
WORDS_OWN = """
*separate, own prior* is not in the paper: every task distils a π₀ from its own visits alone. What lies between it and
Distral is the sharing; what lies between it and separate soft Q-learning is the learnt prior, which lets a policy
become greedy.
"""


def write(out: Path) -> list[Path]:
    """Pictures and README from the CSV files in ``out``; words that stand in the README are kept.

    Raises:
        UserError: a CSV file is missing or damaged, or something cannot be written.
    """
    scores, points = read_csv(out / SCORES, SeedScore), read_csv(out / CURVES, Point)
    if not scores or not points:
        raise UserError(f"{out}: no scores; run polydistill distral two-rooms")
    choices = read_csv(out / PI0, Choice)
    pictures = {CURVES_SVG: (curves(points), "Return over control steps, mean over seeds and 95 % interval")}
    if choices:
        pictures[PI0_SVG] = (prior(choices), "π₀: the next action in every cell, by the previous action")
    readme = out / README
    try:
        old = readme.read_text() if readme.is_file() else ""
        if OPEN not in old or CLOSE not in old.split(OPEN, 1)[1]:
            own = WORDS_OWN if any(s.variant == OWN for s in scores) else ""
            shown = "\n\n".join(f"![{text}]({name})" for name, (_, text) in pictures.items())
            old = (
                f"{WORDS.format(name=out.resolve().name)}{own}\n{OPEN}\n{CLOSE}\n\n{shown}\n\n"
                "Command, settings, commit and machine: `command.txt`.\n"
            )
        before, rest = old.split(OPEN, 1)
        readme.write_text(f"{before}{OPEN}\n{table(scores)}\n{CLOSE}{rest.split(CLOSE, 1)[1]}")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from None
    return [readme, *write_pictures(out, {name: plot for name, (plot, _) in pictures.items()})]


def table(scores: Sequence[SeedScore]) -> str:
    """Markdown: one line per variant, then Distral's lead in area over each other one, seed by seed."""
    head = ["", "area under the curve", "return at the end", "keeps left", "keeps right"]
    lines = [row(head), row(["---", *["---:"] * (len(head) - 1)])]
    variants = list(dict.fromkeys(s.variant for s in scores))
    areas = {v: {s.seed: s.area for s in scores if s.variant == v} for v in variants}
    for variant in variants:
        own = [s for s in scores if s.variant == variant]
        cells = [_mean([getattr(s, key) for s in own], digits) for key, digits in
                 (("area", 2), ("final", 2), ("keeps_left", 3), ("keeps_right", 3))]  # fmt: skip
        lines.append(row([variant, *cells]))
    text = [
        f"Mean over {len(areas[variants[0]])} seeds and 95 % interval; {scores[0].control_steps:,} control steps of "
        f"each task. Return: undiscounted, expected, of an episode of at most {HORIZON} steps that begins anywhere; "
        "the area is the mean of its curve. Keeps left, right: π₀'s probability of going on in the direction in which "
        "a cell of the corridor was entered."
    ]
    for variant in variants if DISTRAL in variants else []:
        if variant != DISTRAL:
            lead = [areas[DISTRAL][seed] - area for seed, area in areas[variant].items()]
            text.append(f"{DISTRAL} - {variant}, area, seed by seed: {_mean(lead, 2)}; more than 0 in "
                        f"{sum(x > 0 for x in lead)} of {len(lead)} seeds.")  # fmt: skip
    return "\n".join([*lines, "", *(line + "\n" for line in text), f"From [{SCORES}]({SCORES}), [{CURVES}]({CURVES})."])


def curves(points: Sequence[Point]) -> str:
    """Return over control steps of each task: the mean over seeds and its 95 % interval."""
    with style():
        figure, ax = axes(1.4 * WIDE, 300)
        labels, told = [], []
        for i, variant in enumerate(dict.fromkeys(p.variant for p in points)):
            own = [p for p in points if p.variant == variant]
            x = np.unique([p.control_steps for p in own])
            y = [[p.score for p in own if p.control_steps == at] for at in x]
            mean, band = np.mean(y, 1), np.array([bootstrap_interval(v, resamples=BAND) for v in y])
            if np.isfinite(band).all():
                ax.fill_between(x, band[:, 0], band[:, 1], color=TASKS[i], alpha=0.25, linewidth=0)
            ax.plot(x, mean, color=TASKS[i])
            labels.append((float(mean[-1]), CAPTION.get(variant, variant), TASKS[i]))
            told.append(f"{variant} {mean[-1]:.2f}")
        ax.set_xlim(0, float(x[-1]))
        ax.xaxis.set_major_formatter(lambda at, _: short_number(at))
        ax.set_xlabel("control steps of each task")
        ax.set_ylabel("expected return")
        label_ends(figure, ax, labels)
        return to_svg(figure, "curves", f"Expected return at the end: {', '.join(told)}")


def prior(choices: Sequence[Choice]) -> str:
    """One map per previous action: in each cell arrows as long as the next action is likely, a dot for staying.

    States in which the previous action hit a wall are left out: there is one map per action.
    """
    previous = ["none", *ACTIONS]
    height, width = (max(getattr(c, k) for c in choices) + 1 for k in ("row", "column"))
    with style():
        figure = Figure(figsize=(1.9 * WIDE / 72, 1.2 * WIDE / 72))
        FigureCanvasSVG(figure)
        for ax, name in zip(figure.subplots(2, 3).flat, previous, strict=True):
            _panel(ax, [c for c in choices if c.previous == name and c.reward in (0.0, STEP)])
            title = "an episode begins" if name == "none" else f"previous action: {name}"
            ax.set_title(title, color=INK, fontsize=12)
            ax.set_xlim(0.4, width - 0.4)
            ax.set_ylim(height - 0.4, 0.4)
            ax.set_aspect("equal")
            ax.axis("off")
            for r, c in {(c.row, c.column) for c in choices}:
                ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, fill=False, edgecolor=RULE, linewidth=0.7))
        return to_svg(figure, "pi0", "The distilled policy: arrows per cell and previous action")


def _panel(ax: Axes, choices: Sequence[Choice]) -> None:
    if not choices:
        return
    x, y = (np.array([getattr(c, key) for c in choices], dtype=float) for key in ("column", "row"))
    for action, (down, right) in zip(ACTIONS, MOVES, strict=True):
        chance = np.array([getattr(c, action) for c in choices])
        for likely, colour in ((False, MUTED), (True, STUDENT)):
            here = (chance >= LIKELY) == likely
            if action == "stay":
                ax.scatter(x[here], y[here], s=40 * chance[here], color=colour, linewidth=0)
            elif here.any():
                p = 0.49 * chance[here]
                ax.quiver(x[here], y[here], p * right, p * down, color=colour, angles="xy", scale_units="xy", scale=1,
                          width=0.012, headwidth=4, headlength=4, headaxislength=3.5, minlength=0.5)  # fmt: skip


def _mean(values: Sequence[float], digits: int) -> str:
    low, high = bootstrap_interval(values)
    spread = f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else ""
    return f"{np.mean(values):.{digits}f}{spread}"
