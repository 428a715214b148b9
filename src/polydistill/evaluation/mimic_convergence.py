"""Theorem 1 of Actor-Mimic (Parisotto et al. 2016) put to the test on random problems: what was measured, as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.algorithms.tabular import mimic_convergence as theory
from polydistill.errors import UserError
from polydistill.evaluation.rows import write_csv
from polydistill.ops.policy import policy
from polydistill.rng import stream

SCORES, CURVES, COMMAND = "scores.csv", "curves.csv", "command.txt"

EPSILON = 0.1  # the student's, Parisotto et al. 2016, App. B
KAPPAS = (1.0, 0.3, 0.1, 0.03, 0.0)  # temperatures of the policy that plays; 0: epsilon-greedy
LAMBDAS = (0.001, 0.01, 0.1, 1.0)
PAIRS = 30  # of random policies, for the contraction ratio
CHAIN, GAIN, DELAY = 100_000, 20.0, 200.0  # steps of the Robbins-Monro chain; alpha_t = GAIN / (t + DELAY)
CHAIN_KAPPA, CHAIN_LAMBDA = 1.0, 0.1  # where the chain is run


@dataclass(frozen=True)
class Setting:
    """One problem under one Gamma and one lambda: a row of ``scores.csv``.

    Attributes:
        problem: Seed of the random problem.
        kappa: Temperature of the policy that plays; 0: epsilon-greedy.
        lam: The weight decay.
        contraction: Largest ratio of :func:`~polydistill.algorithms.tabular.mimic_convergence.contraction_ratio`.
        inequality: Largest ratio of :func:`~polydistill.algorithms.tabular.mimic_convergence.inequality_ratio`.
        starts: First policies.
        fixed, circles: How many of them ended in a fixed point, and in a circle of 2 to 8 policies. The others still
            moved: see :func:`~polydistill.algorithms.tabular.mimic_convergence.periods`.
        fixed_points: Different fixed points among them.
        rounds: Of the slowest start, until it stood still; all rounds if it never did.
        last_step: Largest || pi_{t+1} - pi_t || in the last round.
        distance: Mean total variation between the softmax that was fitted last and the expert, over states and starts.
        chain_error: Largest error in theta of the Robbins-Monro chain under the last policy; NaN where it was not run.
    """

    problem: int
    kappa: float
    lam: float
    contraction: float
    inequality: float
    starts: int
    fixed: int
    circles: int
    fixed_points: int
    rounds: int
    last_step: float
    distance: float
    chain_error: float

    @property
    def one_policy(self) -> bool:
        """Whether Theorem 1's conclusion held: every start ended in the same policy."""
        return self.fixed == self.starts and self.fixed_points == 1


@dataclass(frozen=True)
class Step:
    """A row of ``curves.csv``: the largest || pi_{t+1} - pi_t || over the starts, of problem 0."""

    kappa: float
    lam: float
    round: int
    step: float


def gamma_of(kappa: float) -> theory.Gamma:
    """The policy that plays."""
    return theory.smooth(kappa, EPSILON) if kappa > 0 else theory.hard(EPSILON)


def measure(problem: int, kappa: float, lam: float, starts: int, rounds: int) -> tuple[Setting, np.ndarray]:
    """A row, and the steps ``[T]``. Everything random comes from the problem's seed."""
    made = theory.random_problem(np.random.default_rng(problem))
    states, actions = made.expert.shape
    gamma, rng = gamma_of(kappa), stream(problem, "policies")
    one, other, first = (theory.random_policies(rng, n, states, actions) for n in (PAIRS, PAIRS, starts))
    found = theory.rounds_of(made, first, gamma, lam, rounds)
    chain_error = float("nan")
    if (kappa, lam) == (CHAIN_KAPPA, CHAIN_LAMBDA):
        chain = theory.robbins_monro(made, found.last[0], lam, CHAIN, stream(problem, "chain"), GAIN, DELAY)
        chain_error = float(np.abs(chain - found.theta[0].numpy()).max())
    distance = 0.5 * (policy(made.features @ found.theta) - made.expert).abs().sum(-1).mean()
    row = Setting(
        problem,
        kappa,
        lam,
        theory.contraction_ratio(made, one, other, gamma, lam),
        theory.inequality_ratio(made, one, other, lam),
        starts,
        int((found.period == 1).sum()),
        int((found.period > 1).sum()),
        found.fixed_points(),
        int(found.rounds.max()),
        float(found.steps[-1].max()),
        float(distance),
        chain_error,
    )
    return row, found.steps.max(1)


def measure_all(
    out: Path,
    problems: int = 20,
    starts: int = 10,
    rounds: int = 300,
    about: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Sequence[Setting]:
    """Every problem under every Gamma and lambda; writes ``scores.csv``, ``curves.csv`` and ``command.txt``.

    Args:
        about: Command, commit and machine (:func:`polydistill.training.folder.provenance`); None: no ``command.txt``.

    Raises:
        UserError: a number below 1, or ``out`` cannot be written.
    """
    for name, value in (("--problems", problems), ("--starts", starts), ("--rounds", rounds)):
        if value < 1:
            raise UserError(f"{name} {value}: at least 1")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot make the folder ({error.strerror})") from None
    settings, curves = [], []
    for problem in range(problems):
        for kappa in KAPPAS:
            for lam in LAMBDAS:
                row, steps = measure(problem, kappa, lam, starts, rounds)
                settings.append(row)
                if problem == 0:
                    curves += [Step(kappa, lam, t, float(x)) for t, x in enumerate(steps, 1)]
        say(f"problem {problem + 1} of {problems}")
    try:
        write_csv(out / SCORES, settings, Setting)
        write_csv(out / CURVES, curves, Step)
        if about is not None:
            (out / COMMAND).write_text(_origin(about))
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {error.strerror}") from None
    return settings


def _origin(about: Mapping[str, Any]) -> str:
    machine, dirty = about["machine"], " with uncommitted changes" if about["dirty"] else ""
    where = f"{machine['cores']} cores of {machine['cpu']}; started {about['started']}"
    return f"# commit {about['commit']}{dirty}; {where}\n{about['command']}\n"
