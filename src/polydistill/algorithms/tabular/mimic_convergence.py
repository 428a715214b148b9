"""Does Actor-Mimic converge? Parisotto et al. 2016, section 4 and App. A, on Markov decision processes small enough to
solve: a linear softmax policy imitates an expert in the states that it meets itself.

One round of their scheme: the states that a policy pi visits weigh the regression

    min_theta  sum_s d_pi(s) H(pi_E(.|s), softmax(phi(s) theta)) + lambda / 2 ||theta||^2                        (eq. 7)

(the paper prints lambda ||theta||^2, whose gradient is not its eq. 8), and what it finds plays next:
pi <- Gamma(Phi theta). Theorem 1 says that the rounds end in one policy whatever they began with. That needs Gamma to
be smooth enough for lambda; an exact epsilon-greedy Gamma never is, and then the rounds may go in circles.

Everything is float64, takes leading batch dimensions, and uses the same softmax as the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polydistill.ops import policy as ops

#: Values ``[..., S, A]`` -> the policy that plays next ``[..., S, A]``: the paper's Gamma.
Gamma = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """A Markov decision process without rewards, features of its states, an expert.

    Attributes:
        transitions: ``[S, A, S]``, probabilities of the next state.
        features: ``[S, K]``, the paper's Phi.
        expert: ``[S, A]``, the expert's policy Pi_E.
    """

    transitions: Tensor
    features: Tensor
    expert: Tensor


def random_problem(rng: np.random.Generator, states: int = 6, actions: int = 3, features: int = 4) -> Problem:
    """Every state is reached from every other, so each policy has one stationary distribution."""
    transitions = 0.9 * rng.dirichlet(np.full(states, 0.3), size=(states, actions)) + 0.1 / states
    phi = rng.standard_normal((states, features))
    values = 2 * rng.standard_normal((states, actions))
    return Problem(torch.from_numpy(transitions), torch.from_numpy(phi), ops.policy(torch.from_numpy(values)))


def random_policies(rng: np.random.Generator, n: int, states: int, actions: int) -> Tensor:
    """``[n, S, A]``, each state's probabilities uniform on the simplex."""
    return torch.from_numpy(rng.dirichlet(np.ones(actions), size=(n, states)))


def smooth(kappa: float, epsilon: float = 0.1) -> Gamma:
    """``(1 - epsilon) softmax(q / kappa) + epsilon / A``: Lipschitz, the less the smaller ``kappa``."""
    return lambda q: (1 - epsilon) * ops.policy(q / kappa) + epsilon / q.shape[-1]


def hard(epsilon: float = 0.1) -> Gamma:
    """Epsilon-greedy; the first action where values tie. It jumps, so Theorem 1 does not speak of it."""

    def gamma(q: Tensor) -> Tensor:
        best = torch.nn.functional.one_hot(ops.greedy(q), q.shape[-1]).to(q.dtype)
        return (1 - epsilon) * best + epsilon / q.shape[-1]

    return gamma


def stationary(problem: Problem, policy: Tensor) -> Tensor:
    """The distribution over states that ``policy`` ``[..., S, A]`` keeps: ``[..., S]``, d = d P_pi."""
    step = torch.einsum("...sa,sat->...st", policy, problem.transitions)
    states = step.shape[-1]
    system = step.transpose(-1, -2) - torch.eye(states, dtype=step.dtype)
    system = torch.cat([system[..., :-1, :], torch.ones_like(system[..., :1, :])], -2)  # one equation says: sums to 1
    right = torch.zeros(*step.shape[:-2], states, dtype=step.dtype)
    right[..., -1] = 1
    out: Tensor = torch.linalg.solve(system, right)
    return out


def gradient(problem: Problem, visits: Tensor, theta: Tensor, lam: float) -> Tensor:
    """``Phi^T D (P_theta - Pi_E) + lambda theta`` ``[..., K, A]`` (eq. 8 without its step), D = diag(``visits``)."""
    error = ops.policy(problem.features @ theta) - problem.expert
    return problem.features.T @ (visits[..., None] * error) + lam * theta


def objective(problem: Problem, visits: Tensor, theta: Tensor, lam: float) -> Tensor:
    """Eq. 7 with lambda / 2: ``[...]``."""
    log_p = ops.log_policy(problem.features @ theta)
    cross_entropy = -(problem.expert * log_p).sum(-1)
    return (visits * cross_entropy).sum(-1) + 0.5 * lam * theta.square().sum((-1, -2))


def solve(problem: Problem, visits: Tensor, lam: float, start: Tensor | None = None, most: int = 200) -> Tensor:
    """The minimum of eq. 7, theta ``[..., K, A]``, by Newton's method with steps halved until they go down.

    Args:
        visits: ``[..., S]``.
        start: Where to begin; 0 if None. The problem is convex: it changes nothing but the time.

    Raises:
        ArithmeticError: not solved in ``most`` steps.
    """
    phi, (width, actions) = problem.features, (problem.features.shape[1], problem.expert.shape[1])
    theta = torch.zeros(*visits.shape[:-1], width, actions, dtype=phi.dtype) if start is None else start
    ridge = lam * torch.eye(width * actions, dtype=phi.dtype)
    for _ in range(most):
        slope = gradient(problem, visits, theta, lam)
        if float(slope.abs().max()) < 1e-14:
            return theta
        p = ops.policy(phi @ theta)
        spread = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]  # [..., S, A, A]
        curve = torch.einsum("...s,sk,sl,...sab->...kalb", visits, phi, phi, spread)
        curve = curve.reshape(*visits.shape[:-1], width * actions, width * actions) + ridge
        step = torch.linalg.solve(curve, slope.flatten(-2)).unflatten(-1, (width, actions))
        if float(step.abs().max()) < 1e-13:
            return theta - step
        theta = _downhill(problem, visits, theta, step, lam)
    raise ArithmeticError(f"the regression was not solved in {most} Newton steps: lambda {lam} is too small")


def _downhill(problem: Problem, visits: Tensor, theta: Tensor, step: Tensor, lam: float) -> Tensor:
    """``theta - t step`` with the largest t of 1, 1/2, 1/4 ... that does not raise the objective, row by row."""
    before, t = objective(problem, visits, theta, lam), torch.ones(theta.shape[:-2], dtype=theta.dtype)
    for _ in range(40):
        tried = theta - t[..., None, None] * step
        worse = objective(problem, visits, tried, lam) > before + 1e-14
        if not bool(worse.any()):
            break
        t = torch.where(worse, 0.5 * t, t)
    return tried


def turn(problem: Problem, policy: Tensor, gamma: Gamma, lam: float, start: Tensor | None = None) -> tuple[Tensor, ...]:
    """One round of the scheme: ``policy`` plays, is learnt from, and the next policy is made: (policy, theta)."""
    theta = solve(problem, stationary(problem, policy), lam, start)
    return gamma(problem.features @ theta), theta


@dataclass(frozen=True)
class Rounds:
    """What became of ``N`` first policies.

    Attributes:
        steps: ``[T, N]``, || pi_{t+1} - pi_t ||, Frobenius.
        rounds: int ``[N]``, rounds until a step was at most the tolerance; T where none was.
        period: int ``[N]``, 1 for a fixed point, 2 and more for a circle, 0 for neither (yet); see :func:`periods`.
        last: ``[N, S, A]``, the last policies.
        theta: ``[N, K, A]``, what they were made of.
    """

    steps: np.ndarray
    rounds: np.ndarray
    period: np.ndarray
    last: Tensor
    theta: Tensor

    def fixed_points(self, apart: float = 1e-6) -> int:
        """How many different policies were fixed points."""
        found: list[Tensor] = []
        for policy in self.last[torch.from_numpy(self.period == 1)]:
            if all(float((policy - other).norm()) > apart for other in found):
                found.append(policy)
        return len(found)


def rounds_of(
    problem: Problem, first: Tensor, gamma: Gamma, lam: float, most: int = 200, tolerance: float = 1e-12
) -> Rounds:
    """Iterate :func:`turn` from every one of ``first`` ``[N, S, A]``, ``most`` rounds or until all stand still."""
    path, theta, steps = [first], None, []
    for _ in range(most):
        after, theta = turn(problem, path[-1], gamma, lam, theta)
        steps.append((after - path[-1]).flatten(1).norm(dim=1).numpy())
        path = [*path[-8:], after]
        if steps[-1].max() <= tolerance:
            break
    assert theta is not None
    table = np.stack(steps)
    still = table <= tolerance
    rounds = np.where(still.any(0), still.argmax(0) + 1, len(table))
    return Rounds(table, rounds, periods(path, table, tolerance), path[-1], theta)


def periods(path: Sequence[Tensor], steps: np.ndarray, tolerance: float) -> np.ndarray:
    """1 for a fixed point, k = 2 to 8 for a circle of k policies, 0 for neither, int ``[N]``.

    A fixed point: the last step is at most ``tolerance``. A circle: the policies are back where they were k rounds ago,
    to 1e-8; in between they were further away than 1e-6; and the last step is as long as the one k rounds ago, to a
    thousandth. What comes near slowly, from side to side, has ever shorter steps: it is neither.

    Args:
        path: The last policies, nine if there are so many, each ``[N, S, A]``.
        steps: ``[T, N]``, the lengths of all steps.
    """
    period = np.zeros(steps.shape[1], np.int64)
    for k in range(min(8, len(path) - 1, len(steps) - 1), 1, -1):  # the smallest period is written last
        back = (path[-1] - path[-1 - k]).flatten(1).norm(dim=1).numpy()
        longest = steps[-k:].max(0)
        kept = np.abs(steps[-1] - steps[-1 - k]) < 1e-3 * longest
        period[(back <= 1e-8) & (longest > 1e-6) & kept] = k
    period[steps[-1] <= tolerance] = 1
    return period


def contraction_ratio(problem: Problem, one: Tensor, other: Tensor, gamma: Gamma, lam: float) -> float:
    """The largest ||Gamma(Q_1) - Gamma(Q_2)|| / ||pi_1 - pi_2|| over pairs ``[N, S, A]``: below 1 for a contraction.

    A lower bound of the Lipschitz constant of a round; between the sampled policies it may be larger.
    """
    a, _ = turn(problem, one, gamma, lam)
    b, _ = turn(problem, other, gamma, lam)
    return float(((a - b).flatten(1).norm(dim=1) / (one - other).flatten(1).norm(dim=1)).max())


def inequality_ratio(problem: Problem, one: Tensor, other: Tensor, lam: float) -> float:
    """The largest left over right side, over pairs ``[N, S, A]``, of what replaces the paper's Lemma 3:

        ||theta_1 - theta_2||  <=  (1 / lambda) || Phi^T (D_1 - D_2) (P_theta_2 - Pi_E) ||

    It follows from eq. 7 being lambda-strongly convex, so it is at most 1 for every problem.
    """
    d1, d2 = stationary(problem, one), stationary(problem, other)
    theta1, theta2 = solve(problem, d1, lam), solve(problem, d2, lam)
    error = ops.policy(problem.features @ theta2) - problem.expert
    right = (problem.features.T @ ((d1 - d2)[..., None] * error)).flatten(1).norm(dim=1) / lam
    return float(((theta1 - theta2).flatten(1).norm(dim=1) / right).max())


def robbins_monro(
    problem: Problem, policy: Tensor, lam: float, steps: int, rng: np.random.Generator, a: float, b: float
) -> np.ndarray:
    """Eq. 8 one visited state at a time: theta ``[K, A]`` after ``steps`` of the chain of ``policy`` ``[S, A]``.

    Steps are alpha_t = a / (t + b): their sum diverges, that of their squares does not (Lemma 1). ``a`` above
    1 / (2 lambda) gives errors of order 1 / sqrt(t).
    """
    phi, expert = problem.features.numpy(), problem.expert.numpy()
    chain = torch.einsum("sa,sat->st", policy, problem.transitions).numpy().cumsum(1)
    chain[:, -1] = 1.0
    theta, s = np.zeros((phi.shape[1], expert.shape[1])), 0
    for t, u in enumerate(rng.random(steps)):
        s = int(np.searchsorted(chain[s], u, side="right"))
        p = np.exp(phi[s] @ theta)
        theta -= a / (t + b) * (np.outer(phi[s], p / p.sum() - expert[s]) + lam * theta)
    return theta
