"""Actor-Mimic's convergence theorem in tables: Parisotto et al. 2016, against typed-in numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from polydistill.algorithms.tabular import mimic_convergence as theory
from polydistill.algorithms.tabular.mimic_convergence import Problem, hard, random_policies, random_problem, smooth
from polydistill.errors import UserError
from polydistill.evaluation.mimic_convergence import CURVES, SCORES, Setting, Step, measure, measure_all
from polydistill.evaluation.rows import read_csv
from polydistill.ops.policy import policy
from polydistill.reporting.mimic_convergence import ROUNDS_SVG, SETTINGS_SVG, write
from polydistill.rng import stream
from polydistill.training.folder import provenance

FLOAT = torch.float64


def problem(seed: int) -> Problem:
    return random_problem(np.random.default_rng(seed))


def policies(seed: int, n: int = 10) -> Tensor:
    return random_policies(np.random.default_rng(1000 + seed), n, 6, 3)


@pytest.mark.parametrize(
    "lam, x, p",
    [
        (0.001, 0.690991, 0.799309),
        (0.01, 0.672394, 0.793276),
        (0.1, 0.538968, 0.746103),
        (1.0, 0.200886, 0.599114),
    ],
)
def test_one_state_in_closed_form(lam: float, x: float, p: float) -> None:
    """theta = (x, -x) with sigma(2 x) - 0.8 + lambda x = 0; x -> ln(4) / 2 without weight decay."""
    one = Problem(
        torch.ones(1, 2, 1, dtype=FLOAT), torch.ones(1, 1, dtype=FLOAT), torch.tensor([[0.8, 0.2]], dtype=FLOAT)
    )
    theta = theory.solve(one, torch.ones(1, dtype=FLOAT), lam)
    assert theta[0, 0].item() == pytest.approx(x, abs=1e-6)
    assert theta[0, 1].item() == pytest.approx(-x, abs=1e-6)
    assert policy(theta)[0, 0].item() == pytest.approx(p, abs=1e-6)


def test_the_stationary_distribution_is_where_the_chain_stays() -> None:
    made, several = problem(0), policies(0)
    visits = theory.stationary(made, several)
    for policy_, found in zip(several, visits, strict=True):
        chain = torch.einsum("sa,sat->st", policy_, made.transitions)
        torch.testing.assert_close(torch.linalg.matrix_power(chain, 200)[0], found)
    torch.testing.assert_close(made.transitions.sum(-1), torch.ones(6, 3, dtype=FLOAT))


def test_the_update_is_the_gradient_of_the_objective() -> None:
    """Eq. 8 belongs to eq. 7 with lambda / 2, not to lambda as printed."""
    made, lam = problem(1), 0.3
    visits = theory.stationary(made, policies(1, 1)[0])
    theta = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=FLOAT).requires_grad_()
    (slope,) = torch.autograd.grad(theory.objective(made, visits, theta, lam), theta)
    torch.testing.assert_close(theory.gradient(made, visits, theta.detach(), lam), slope)


def test_newton_finds_what_descent_finds() -> None:
    made, lam = problem(2), 0.1
    visits = theory.stationary(made, policies(2, 1)[0])
    slow = torch.zeros(4, 3, dtype=FLOAT)
    for _ in range(3000):
        slow = slow - 0.5 * theory.gradient(made, visits, slow, lam)
    torch.testing.assert_close(theory.solve(made, visits, lam), slow, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lam", [0.001, 0.01, 0.1, 1.0])
def test_the_inequality(seed: int, lam: float) -> None:
    """The theorem's inequality for 30 pairs of policies; without its 1 / lambda or with D_1 = D_2 it would not hold."""
    ratio = theory.inequality_ratio(problem(seed), policies(seed, 30), policies(seed + 50, 30), lam)
    assert 0.001 < ratio <= 1


@pytest.mark.parametrize("seed", range(4))
def test_a_smooth_policy_contracts_and_ends_in_one_place(seed: int) -> None:
    made = problem(seed)
    for lam in (0.001, 0.01, 0.1, 1.0):
        ratio = theory.contraction_ratio(made, policies(seed, 30), policies(seed + 50, 30), smooth(1.0), lam)
        assert 0 < ratio < 0.5
        found = theory.rounds_of(made, policies(seed), smooth(1.0), lam)
        assert (found.period == 1).all()
        assert found.fixed_points() == 1
        assert found.rounds.max() <= 20
        spread = (found.last - found.last[0]).flatten(1).norm(dim=1).max()
        assert spread < 1e-11


def test_seed_0_takes_as_many_rounds_as_the_specification_says() -> None:
    made, first = problem(0), policies(0)
    rounds = [int(theory.rounds_of(made, first, smooth(1.0), lam).rounds.max()) for lam in (0.001, 0.01, 0.1, 1.0)]
    np.testing.assert_allclose(rounds, [17, 17, 17, 14], atol=1)


def test_a_steep_policy_goes_round_in_circles_for_ever() -> None:
    """Seed 0, kappa 0.1, lambda 0.01: two policies in turn, 0.69997 apart; a larger lambda ends it."""
    made, first = problem(0), policies(0)
    found = theory.rounds_of(made, first, smooth(0.1), 0.01)
    assert (found.period == 2).all()
    assert found.fixed_points() == 0
    assert (found.rounds == 200).all()
    np.testing.assert_allclose(found.steps[-1], 0.69997, atol=2e-6)
    for lam in (0.1, 1.0):
        still = theory.rounds_of(made, first, smooth(0.1), lam)
        assert (still.period == 1).all()
        assert still.fixed_points() == 1


def test_slow_convergence_is_no_circle() -> None:
    """Problem 2, kappa 0.03, lambda 0.01: eight of ten starts come near from side to side, by a few per cent a round.

    After 400 rounds they are back, to 1e-8, where they were two rounds before; after 680 all of them stand still.
    """
    made, first = problem(2), random_policies(stream(2, "policies"), 70, 6, 3)[-10:]
    found = theory.rounds_of(made, first, smooth(0.03), 0.01, 400)
    assert found.period.tolist().count(0) == 8
    assert found.period.tolist().count(1) == 2
    assert 1e-8 < found.steps[-1].max() < 1e-6
    assert ((found.period == 1) | (found.steps[-1] < 0.995 * found.steps[-3])).all()


@pytest.mark.parametrize(
    ("steps", "period"),
    [
        ([0.7] * 12, 2),
        ([1.0, 1.0, 1.0 - 2e-4, 1.0 - 2e-4], 2),  # of equal length but for rounding
        ([0.7 * 0.99**t for t in range(12)], 0),  # shrinking: a spiral
        ([5e-9] * 12, 0),  # too short to tell from standing still
        ([0.0] * 12, 1),
    ],
)
def test_what_is_called_a_circle(steps: list[float], period: int) -> None:
    """Two policies in turn, whose step has the lengths given."""
    ends = [torch.zeros(1, 6, 3, dtype=FLOAT), torch.zeros(1, 6, 3, dtype=FLOAT)]
    ends[1][0, 0, 0] = 1e-12 if steps[-1] == 0 else steps[-1]
    path = [ends[t % 2] for t in range(len(steps) + 1)][-9:] if steps[-1] else [ends[0]] * 9
    found = theory.periods(path, np.array(steps)[:, None], 1e-12)
    assert found.tolist() == [period]


def test_epsilon_greedy_goes_round_or_ends_in_several_places() -> None:
    """0.9 sqrt(2) = 1.27279: one state's greedy action changes back and forth."""
    circle = theory.rounds_of(problem(0), policies(0), hard(), 0.01)
    assert (circle.period == 2).all()
    np.testing.assert_allclose(circle.steps[-1], 1.27279, atol=1e-5)
    for seed in (1, 3, 4):
        found = theory.rounds_of(problem(seed), policies(seed), hard(), 0.01)
        assert (found.period == 1).all()
        assert found.rounds.max() <= 4
    assert theory.contraction_ratio(problem(0), policies(0, 30), policies(50, 30), hard(), 0.01) > 1


def test_a_smooth_policy_may_end_in_two_places() -> None:
    """Seed 5, kappa 0.1, lambda 0.1: the theorem's conclusion fails though Gamma is Lipschitz."""
    found = theory.rounds_of(problem(5), policies(5, 40), smooth(0.1), 0.1)
    assert (found.period == 1).all()
    assert found.fixed_points() == 2


@pytest.mark.parametrize("gamma", [smooth(1.0), smooth(0.1), hard()])
def test_with_a_feature_for_every_state_the_expert_is_found(gamma: theory.Gamma) -> None:
    """The realizable case: lambda -> 0 makes it exact, whichever policy collects."""
    made = problem(0)
    table = Problem(made.transitions, torch.eye(6, dtype=FLOAT), made.expert)
    found = theory.rounds_of(table, policies(0), gamma, 1e-6)
    assert (found.period == 1).all()
    assert found.rounds.max() <= 6
    torch.testing.assert_close(policy(found.theta), made.expert.expand(10, 6, 3), rtol=0, atol=2e-4)
    for collector in (made.expert, policies(7, 1)[0], torch.full((6, 3), 1 / 3, dtype=FLOAT)):
        theta = theory.solve(table, theory.stationary(table, collector), 1e-6)
        torch.testing.assert_close(policy(theta), made.expert, rtol=0, atol=2e-4)


def test_single_visited_states_lead_to_the_same_parameters() -> None:
    made, plays, lam = problem(0), policies(0, 1)[0], 1.0
    exact = theory.solve(made, theory.stationary(made, plays), lam).numpy()
    errors = []
    for steps in (300, 30_000):
        found = theory.robbins_monro(made, plays, lam, steps, np.random.default_rng(0), 2.0, 20.0)
        errors.append(np.abs(found - exact).max())
    assert errors[1] < 0.01 < np.abs(exact).max() / 10
    assert errors[1] < errors[0]


def test_too_small_a_weight_decay_is_said() -> None:
    made = problem(0)
    with pytest.raises(ArithmeticError, match="not solved"):
        theory.solve(made, theory.stationary(made, policies(0, 1)[0]), 0.01, most=1)


# ----------------------------------------------------------------------------------------------------- the experiment
def test_a_measured_row_says_what_the_theory_says() -> None:
    row, steps = measure(0, 0.1, 0.01, starts=4, rounds=200)
    assert (row.fixed, row.circles, row.fixed_points, row.rounds) == (0, 4, 0, 200)
    assert not row.one_policy
    assert len(steps) == 200
    assert steps[-1] == pytest.approx(0.69997, abs=2e-6)
    again, _ = measure(0, 1.0, 1.0, starts=4, rounds=200)
    assert again.one_policy
    assert 0 < again.contraction < 1
    assert 0 < again.inequality <= 1
    assert np.isnan(again.chain_error)


def test_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polydistill.evaluation.mimic_convergence.CHAIN", 500)
    out = tmp_path / "results" / "x"
    measure_all(out, problems=1, starts=3, rounds=60, about=provenance("polydistill mimic-convergence"))
    written = write(out)
    assert {p.name for p in written} == {"README.md", ROUNDS_SVG, SETTINGS_SVG}
    settings = read_csv(out / SCORES, Setting)
    assert len(settings) == 20
    assert sum(np.isfinite(s.chain_error) for s in settings) == 1
    assert {(s.kappa, s.lam) for s in read_csv(out / CURVES, Step)} == {(s.kappa, s.lam) for s in settings}
    assert (out / "command.txt").read_text().splitlines()[-1] == "polydistill mimic-convergence"
    text = (out / "README.md").read_text()
    assert "| softmax, κ 1 | 0.01 |" in text
    assert text.count("| 1 | 0 | 0 | 0 |") + text.count("| 0 | 0 | 1 | 0 |") >= 18
    for name in (ROUNDS_SVG, SETTINGS_SVG):
        picture = (out / name).read_text()
        assert picture.startswith("<svg")
        assert "mathdefault" not in picture
        assert "--task-0" in picture
        assert f"({name})" in text
    (out / "README.md").write_text(text.replace("section 4:", "section 4, by hand:").replace("| softmax, κ 1 |", "| |"))
    write(out)
    assert (out / "README.md").read_text() == text.replace("section 4:", "section 4, by hand:")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for wrong in ({"problems": 0}, {"starts": 0}, {"rounds": -1}):
        with pytest.raises(UserError, match=f"--{next(iter(wrong))} "):
            measure_all(tmp_path / "x", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        measure_all(tmp_path / "file", problems=1)
    with pytest.raises(UserError, match=r"scores\.csv"):
        write(tmp_path)
