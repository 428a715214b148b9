"""Does Actor-Mimic converge: the pictures and the table of :mod:`polydistill.evaluation.mimic_convergence`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from polydistill.errors import UserError
from polydistill.evaluation.markdown import row
from polydistill.evaluation.mimic_convergence import (
    CHAIN,
    CHAIN_KAPPA,
    CHAIN_LAMBDA,
    CURVES,
    SCORES,
    Setting,
    Step,
)
from polydistill.evaluation.rows import read_csv
from polydistill.reporting.plots import WIDE, label_ends
from polydistill.reporting.svg import INK, TASKS, axes, style, to_svg, write_pictures

ROUNDS_SVG, SETTINGS_SVG = "rounds.svg", "settings.svg"

#: What the first picture shows of problem 0: (kappa, lambda), label.
SHOWN = (((0.0, 0.01), "ε-greedy, λ 0.01"), ((0.1, 0.01), "κ 0.1, λ 0.01"), ((0.1, 0.1), "κ 0.1, λ 0.1"),
         ((1.0, 0.01), "κ 1, λ 0.01"))  # fmt: skip

OPEN, CLOSE = "<!-- numbers -->", "<!-- /numbers -->"

WORDS = """# parisotto-convergence

Actor-Mimic (Parisotto et al. 2016), section 4: a linear softmax policy imitates an expert in the states that the policy
itself visits; what was fitted plays next. Theorem 1 says that this ends in one policy, whatever it began with, if the
map from values to the policy that plays is Lipschitz. Here it is done, exactly, on random problems (6 states, 3
actions, 4 features, ε 0.1): κ is the temperature of the policy that plays (ε-greedy: κ → 0, which is not Lipschitz), λ
the weight decay. `polydistill mimic-convergence` makes everything again.

The theorem's last step, "there exists a β < 1", is a condition, not a consequence: the Lipschitz constant has to be
small for λ. Where it is, every start ends in the same policy. Where it is not, the rounds may go in circles, or end in
different policies, and a smooth map does not prevent it.
"""


def write(out: Path) -> list[Path]:
    """Pictures and README from the CSV files in ``out``; words that stand in the README are kept.

    Raises:
        UserError: a CSV file is missing or damaged, or something cannot be written.
    """
    settings, steps = read_csv(out / SCORES, Setting), read_csv(out / CURVES, Step)
    if not settings:
        raise UserError(f"{out / SCORES}: no settings; run polydistill mimic-convergence")
    readme = out / "README.md"
    try:
        old = readme.read_text() if readme.is_file() else ""
        if OPEN not in old or CLOSE not in old.split(OPEN, 1)[1]:
            old = (
                f"{WORDS}\n{OPEN}\n{CLOSE}\n\n![The length of each round's step, problem 0]({ROUNDS_SVG})\n\n"
                f"![On how many problems all starts end in one policy]({SETTINGS_SVG})\n\n"
                "Command, commit and machine: `command.txt`.\n"
            )
        before, rest = old.split(OPEN, 1)
        after = rest.split(CLOSE, 1)[1]
        readme.write_text(f"{before}{OPEN}\n{table(settings)}\n{CLOSE}{after}")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from None
    plots = {ROUNDS_SVG: rounds_picture(steps), SETTINGS_SVG: settings_picture(settings)}
    return [readme, *write_pictures(out, plots)]


def table(settings: Sequence[Setting]) -> str:
    """Markdown: one line per Gamma and lambda, over all problems."""
    head = ["policy that plays", "λ", "contraction ratio", "one policy", "several", "a circle", "neither", "rounds"]
    lines = [row(head), row(["---", *["---:"] * (len(head) - 1)])]
    for (kappa, lam), own in _groups(settings).items():
        ratios = [s.contraction for s in own]
        ended = [s.rounds for s in own if s.one_policy]
        several = sum(s.fixed == s.starts and s.fixed_points > 1 for s in own)
        rounds = f"{min(ended)} to {max(ended)}" if ended else "–"
        cells = [name_of(kappa), f"{lam:g}", f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        neither = sum(s.circles == 0 and s.fixed < s.starts for s in own)
        cells += [str(sum(s.one_policy for s in own)), str(several), str(sum(s.circles > 0 for s in own)), str(neither)]
        lines.append(row([*cells, rounds]))
    errors = [s.chain_error for s in settings if np.isfinite(s.chain_error)]
    chain = ""
    if errors:
        chain = (
            f" Robbins–Monro on single visited states ({CHAIN:,} of them, κ {CHAIN_KAPPA:g}, λ {CHAIN_LAMBDA:g}) came "
        )
        chain += f"within {max(errors):.3f} of the exact θ on every problem."
    problems, starts = len({s.problem for s in settings}), settings[0].starts
    return "\n".join(
        [
            *lines,
            "",
            f"{problems} random problems, {starts} first policies each. *Contraction ratio*: the largest "
            "‖Γ(Q₁) − Γ(Q₂)‖ / ‖π₁ − π₂‖ over 30 random pairs, median over problems (lowest to highest); below 1 for a "
            "contraction, though between the pairs it may be larger. *One policy*: problems where all starts end in "
            "the same one; *several*: in different ones; *a circle*: some start goes round 2 to 8 policies for ever; "
            "*neither*: some start still moves at the end. *Rounds* until all starts of a problem stand still "
            "(‖step‖ ≤ 1e-12), where they end in one policy. ‖θ₁ − θ₂‖ over (1/λ)‖Φᵀ(D₁ − D₂)(P₂ − Π)‖, which cannot "
            f"exceed 1, was {max(s.inequality for s in settings):.2f} at most.{chain} "
            f"From [{SCORES}]({SCORES}) and [{CURVES}]({CURVES}).",
        ]
    )


def name_of(kappa: float) -> str:
    """What plays, in words."""
    return f"softmax, κ {kappa:g}" if kappa > 0 else "ε-greedy"


def rounds_picture(steps: Sequence[Step]) -> str:
    """The step || pi_{t+1} - pi_t || over rounds, logarithmic: what converges falls, what circles stays."""
    with style():
        figure, ax = axes(1.4 * WIDE, 280)
        ax.set_yscale("log")
        labels, told = [], []
        for i, (key, label) in enumerate(SHOWN):
            own = sorted((s.round, s.step) for s in steps if (s.kappa, s.lam) == key)[:80]
            if not own:
                continue
            x, y = np.array([t for t, _ in own]), np.maximum([v for _, v in own], 1e-13)
            ax.plot(x, y, color=TASKS[i], marker="o", markersize=2.4)
            labels.append((float(y[-1]), label, TASKS[i]))
            told.append(f"{label} {y[-1]:.1e} after {x[-1]} rounds")
        ax.set_ylim(3e-14, 8)
        ax.set_xlim(left=0)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.set_xlabel("rounds")
        ax.set_ylabel("‖π after − π before‖, problem 0")
        label_ends(figure, ax, labels)
        return to_svg(figure, "rounds", f"Length of the last step shown: {'; '.join(told)}")


def settings_picture(settings: Sequence[Setting]) -> str:
    """Share of problems where every start ends in one policy, over kappa; a line per lambda."""
    groups = _groups(settings)
    kappas = sorted({k for k, _ in groups}, reverse=True)
    lambdas = sorted({lam for _, lam in groups})
    places = {k: k if k > 0 else 0.4 * min((x for x in kappas if x > 0), default=1.0) for k in kappas}
    with style():
        figure, ax = axes(1.4 * WIDE, 280)
        labels, told = [], []
        for i, lam in enumerate(lambdas):
            own = [(places[k], float(np.mean([s.one_policy for s in groups[k, lam]]))) for k in kappas]
            ax.plot([x for x, _ in own], [100 * y for _, y in own], color=TASKS[i], marker="o", markersize=4)
            labels.append((100 * own[-1][1], f"λ {lam:g}", TASKS[i]))
            told.append(f"λ {lam:g}: {', '.join(f'{100 * y:.0f} %' for _, y in own)}")
        ax.set_xscale("log")
        ax.invert_xaxis()
        names = [f"κ {k:g}" if k > 0 else "ε-greedy" for k in kappas]
        ax.set_xticks([places[k] for k in kappas], names)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_ylim(0, 105)
        ax.set_xlabel("the policy that plays, smoother on the left", color=INK)
        ax.set_ylabel("% of problems that end in one policy")
        label_ends(figure, ax, labels)
        return to_svg(figure, "settings", f"Problems that end in one policy, by {', '.join(names)}. {'; '.join(told)}")


def _groups(settings: Sequence[Setting]) -> dict[tuple[float, float], list[Setting]]:
    found: dict[tuple[float, float], list[Setting]] = {}
    for s in settings:
        found.setdefault((s.kappa, s.lam), []).append(s)
    return found
