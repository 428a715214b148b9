"""Actor-Mimic's objective, networks and recipes: Parisotto et al. 2016, against typed-in numbers."""

from __future__ import annotations

import dataclasses
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from polydistill import api, build, nets
from polydistill.algorithms.actor_mimic import CROSS_ENTROPY, FeatureRegression, actor_mimic
from polydistill.algorithms.policy_distillation import Loss, Targets, policy_distillation
from polydistill.errors import UserError
from polydistill.nets.nature import screen_features
from polydistill.nets.sizes import make_named
from polydistill.nets.student import PolicyOutput, count
from polydistill.optim import AuthorsAdam
from polydistill.recipe import DistillRecipe, FeatureSettings, read, resolve
from polydistill.tasks import ATARI_AXIS, Suite, Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import Network, build_network
from polydistill.training.behaviour import Behaviour
from polydistill.training.checkpoint import latest
from polydistill.training.distil import distil
from tests.distilling import NAMES, OPTIONS, copies, exact_teacher, fitted_teacher, parts_of, small, write_teacher

FEATURES = {"beta": 0.01, "half": True}
FLOAT = torch.float64

# Parisotto et al. 2016: one state, the third of four actions is not the game's
STUDENT = torch.tensor([[[2.0, 1.0, 0.0, -1.0]]], dtype=FLOAT)
EXPERT = torch.tensor([[[1.0, 3.0, 0.0, 2.0]]], dtype=FLOAT)
VALID = torch.tensor([[[True, False, True, True]]])


def loss_of(logits: Tensor, h: Tensor | None = None, objective: Any = None, told: Any = None) -> Loss:
    h = logits if h is None else h
    found: Loss = (objective or actor_mimic())(PolicyOutput(logits, h), Targets(EXPERT, VALID, 1.0, told))
    return found


def test_the_policy_term_and_its_gradient() -> None:
    logits = STUDENT.clone().requires_grad_()
    loss = loss_of(logits)
    loss.per_example.sum().backward()
    assert loss.per_example.item() == pytest.approx(2.3456300332, abs=1e-10)
    assert logits.grad is not None
    expected = [0.5990662634, 0.0, 0.0241646262, -0.6232308896]
    torch.testing.assert_close(logits.grad[0, 0], torch.tensor(expected, dtype=FLOAT), rtol=0, atol=1e-10)
    assert logits.grad[0, 0, 1] == 0  # exactly: the game has no such action


def test_the_sign_is_that_of_a_cost() -> None:
    """Eq. 4 is printed without its minus. The minimum is the expert's entropy, and descent goes there."""
    logits, losses = STUDENT.clone().requires_grad_(), []
    for _ in range(400):
        loss = loss_of(logits).per_example.sum()
        losses.append(loss.item())
        logits = (logits - torch.autograd.grad(loss, logits)[0]).detach().requires_grad_()
    assert min(losses) >= 0.8323955818
    assert losses[-1] == pytest.approx(0.8323955818, abs=1e-6)
    assert all(b <= a + 1e-12 for a, b in pairwise(losses))


def test_the_gradient_is_that_of_kl() -> None:
    grads = []
    for objective in (actor_mimic(), actor_mimic("kl"), policy_distillation("kl")):
        logits = STUDENT.clone().requires_grad_()
        loss_of(logits, objective=objective).per_example.sum().backward()
        grads.append(logits.grad)
    assert grads[0] is not None
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-15)
    torch.testing.assert_close(grads[1], grads[2], rtol=0, atol=0)
    entropy = 0.8323955818
    kl = loss_of(STUDENT, objective=actor_mimic("kl")).per_example.item()
    assert kl == pytest.approx(2.3456300332 - entropy, abs=1e-9)


def test_invalid_actions_change_nothing() -> None:
    other = STUDENT.clone()
    other[0, 0, 1] = 99.0
    assert loss_of(other).per_example.item() == loss_of(STUDENT).per_example.item()
    assert loss_of(other).metrics["agreement"].item() == loss_of(STUDENT).metrics["agreement"].item() == 0


def test_exploration_and_greedy_play_know_only_the_games_own_actions() -> None:
    """A student whose other outputs are huge plays its games with their own actions, and as often each."""
    played: list[np.ndarray] = []
    for bonus in (0.0, 1e6):
        parts = parts_of(small(behaviour={"epsilon_start": 0.5, "epsilon_end": 0.5, "epsilon_steps": 0}))
        assert [len(own) for own in parts.suite.actions] == [3, 2]  # of three on the axis
        bias = parts.student.output.bias
        actors = build.actors(parts)
        for g, actor in enumerate(actors):
            others = [a for a in range(len(parts.suite.axis)) if a not in parts.suite.actions[g]]
            with torch.no_grad():
                bias[others] += bonus
            seen: list[np.ndarray] = []
            step = actor.env.step

            def watched(actions: np.ndarray, step: Any = step, seen: list[np.ndarray] = seen) -> Any:
                seen.append(actions.copy())
                return step(actions)

            actor.env.step = watched  # type: ignore[method-assign]
            for _ in range(50):
                actor.step()
            with torch.no_grad():
                bias[others] -= bonus
            assert np.stack(seen).min() >= 0
            assert np.stack(seen).max() < actor.env.task.n_actions
            played.append(np.stack(seen))
    assert (played[0] == played[2]).all()
    assert (played[1] == played[3]).all()


def test_exploration_is_uniform_over_the_own_actions() -> None:
    behaviour = Behaviour(epsilon_start=0.1, epsilon_end=0.1, epsilon_steps=0)
    best = np.zeros(100_000, np.int64)
    actions = behaviour.choose(best, best, 4, 10**9, np.random.default_rng(0))
    shares = np.bincount(actions, minlength=4) / len(actions)
    np.testing.assert_allclose(shares, [0.925, 0.025, 0.025, 0.025], atol=0.002)


# ---------------------------------------------------------------------------------------------------- the feature term
def test_the_feature_term_by_hand() -> None:
    """Widths differ; f(h) = W h + b; the distance is a sum over the expert's features, halved or not."""
    regression = FeatureRegression(2, [3], beta=0.1, half=False).double()
    with torch.no_grad():
        regression.projections[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
        regression.projections[0].bias.copy_(torch.tensor([0.0, 0.5, -1.0]))
    h = torch.tensor([[[1.0, 2.0]]], dtype=FLOAT, requires_grad=True)
    told = torch.tensor([[0.0, 4.0, 5.0]], dtype=FLOAT)  # f(h) = (1, 4.5, 2): differences 1, 0.5, -3
    loss = loss_of(STUDENT, h, actor_mimic(regression=regression), told={0: told})
    assert loss.per_example.item() == pytest.approx(2.3456300332 + 0.1 * 10.25, abs=1e-9)
    assert loss.metrics["feature_distance"].item() == pytest.approx(10.25)
    loss.per_example.sum().backward()
    assert h.grad is not None  # 2 * 0.1 * W^T (1, 0.5, -3)
    torch.testing.assert_close(h.grad[0, 0], 0.2 * torch.tensor([-2.0, -2.0], dtype=FLOAT))
    halved = FeatureRegression(2, [3], beta=0.1, half=True).double()
    halved.load_state_dict(regression.state_dict())
    half = loss_of(STUDENT, h, actor_mimic(regression=halved), told={0: told})
    assert half.per_example.item() == pytest.approx(2.3456300332 + 0.05 * 10.25, abs=1e-9)


def test_features_that_are_linear_in_the_students_cost_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(1, 50, 4, generator=generator, dtype=FLOAT)
    w, b = torch.randn(6, 4, generator=generator, dtype=FLOAT), torch.randn(6, generator=generator, dtype=FLOAT)
    told = h[0] @ w.T + b
    regression = FeatureRegression(4, [6]).double()
    solution = torch.linalg.lstsq(torch.cat([h[0], torch.ones(50, 1, dtype=FLOAT)], 1), told).solution
    with torch.no_grad():
        regression.projections[0].weight.copy_(solution[:4].T)
        regression.projections[0].bias.copy_(solution[4])
    h.requires_grad_()
    distance = regression(h, {0: told})
    distance.sum().backward()
    assert float(distance.detach().max()) < 1e-24
    assert h.grad is not None
    assert float(h.grad.abs().max()) < 1e-11


def gradients(beta: float | None, games: list[int] | None = None, student: str = "mimic") -> tuple[Any, Any]:
    """The gradients of one minibatch: the student's and the projections'."""
    objective = {"features": None if beta is None else {"beta": beta}}
    parts = parts_of(small(student, objective={"loss": CROSS_ENTROPY, "temperature": 1.0, **objective}))
    actors, learner = build.actors(parts), build.learner(parts)
    for actor in actors:
        for _ in range(20):
            actor.step()
    batch = build.rectangle(parts, actors).draw(np.random.default_rng(0), games)
    out = parts.student(batch.obs, games)
    learner.objective(out, batch.targets).per_example.mean().backward()
    beside = learner.beside.named_parameters() if learner.beside is not None else ()
    return ({k: p.grad for k, p in parts.student.named_parameters()}, {k: p.grad for k, p in beside})


def test_without_weight_the_trunk_feels_the_policies_alone() -> None:
    plain, none = gradients(None)
    zero, _ = gradients(0.0)
    some, beside = gradients(0.01)
    assert not none
    assert all(torch.equal(plain[k], zero[k]) for k in plain)
    moved = [k for k in plain if not torch.equal(plain[k], some[k])]
    assert "fc.weight" in moved  # the gradient flows into what the tasks share
    assert "output.weight" not in moved  # the outputs come after the features
    assert all(bool(g.any()) for g in beside.values())


@pytest.mark.parametrize("game", [0, 1])
def test_a_games_samples_reach_no_other_games_projection(game: int) -> None:
    _, beside = gradients(0.01, [game])
    for key, grad in beside.items():
        assert (grad is not None and bool(grad.any())) == (int(key.split(".")[1]) == game), key


@pytest.mark.parametrize("student", sorted(OPTIONS))
def test_every_student_can_be_taught_features(student: str) -> None:
    """Any width to any width; the experts stay what they are, and the distance falls."""
    teachers = [fitted_teacher(NAMES[0]), Teacher(*untrained(NAMES[1], 40))]
    settings = {"loss": CROSS_ENTROPY, "temperature": 0.4, "features": {"beta": 1.0, "half": True}}
    parts = parts_of(small(student, objective=settings), teachers)
    actors, learner = build.actors(parts), build.learner(parts)
    assert learner.beside is not None
    shapes = [tuple(p.weight.shape) for p in learner.beside.projections]
    assert [s[0] for s in shapes] == [64, 40]
    before, ours = [copies(t.net) for t in parts.teachers], copies(learner.beside)
    loop = distil(actors, learner, build.rectangle(parts, actors), parts.recipe.schedule, np.random.default_rng(0))
    told = [float(x.metrics["feature_distance"].mean()) for x in islice(loop, 80)]
    assert np.mean(told[-10:]) < 0.5 * np.mean(told[:5])
    assert learner.skipped == 0
    after = [copies(t.net) for t in parts.teachers]
    assert all(torch.equal(b[k], a[k]) for b, a in zip(before, after, strict=True) for k in b)
    assert all(not torch.equal(ours[k], v) for k, v in learner.beside.state_dict().items())


def untrained(name: str, hidden: int) -> tuple[Task, nn.Module]:
    task = exact_teacher(name).task
    return task, build_network(task, Network(hidden=hidden))


def test_the_target_is_the_experts_hidden_layer_after_its_relu() -> None:
    teacher = fitted_teacher("catch")
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (5, *teacher.task.obs_shape), dtype=np.uint8))
    net: Any = teacher.net
    found = teacher.features(obs)
    assert found.shape == (5, teacher.feature_length) == (5, 64)
    assert float(found.min()) == 0.0
    torch.testing.assert_close(net.output(found), teacher(obs).values)
    assert torch.equal(teacher.features(net.encode(obs), encoded=True), found)
    assert not found.requires_grad


def test_cached_features_of_a_shared_torso_give_the_same_targets() -> None:
    """Yin & Pan's network may keep its torso's features in place of observations: the expert goes on from there."""
    found = []
    for cached in (False, True):
        parts = parts_of(small("task_torsos", memory={"cache_features": cached}, objective={"features": FEATURES}))
        actors = build.actors(parts)
        for actor in actors:
            for _ in range(20):
                actor.step()
        batch = build.rectangle(parts, actors).draw(np.random.default_rng(0))
        assert batch.encoded == cached
        found.append(batch.targets.features)
    assert list(found[0]) == list(found[1]) == [0, 1]
    for g in range(2):
        torch.testing.assert_close(found[0][g], found[1][g])


# ----------------------------------------------------------------------------------------------------- the joint update
def test_a_joint_update_does_not_know_the_order_of_the_games() -> None:
    after = []
    for order in ((0, 1), (1, 0)):
        teachers = [fitted_teacher(NAMES[g]) for g in order]
        parts = parts_of(
            small(objective={"loss": CROSS_ENTROPY, "features": FEATURES}, learner={"batch_size": 8}), teachers
        )
        fixed = parts_of(small())  # the axis follows the order of the games, so weights are copied by meaning
        weights = copies(fixed.student)
        axis = [fixed.suite.axis.index(a) for a in parts.suite.axis]
        for key in ("output.weight", "output.bias"):
            weights[key] = weights[key][axis]
        parts.student.load_state_dict(weights)
        learner = build.learner(parts)
        assert learner.beside is not None
        with torch.no_grad():
            for projection in learner.beside.projections:
                projection.weight.fill_(0.01)
                projection.bias.zero_()
        actors = build.actors(parts)
        for actor in actors:
            actor._obs = actor.env.reset(7)
            actor.rng = np.random.default_rng(1)
            for _ in range(20):
                actor.step()
        rectangle = build.rectangle(parts, actors)
        rows = {g: k for k, g in enumerate(order)}
        draws = [np.random.default_rng(g) for g in range(2)]  # a stream for each game, whatever its row
        singles = [rectangle.draw(draws[g], [rows[g]]) for g in range(2)]
        kept = [(s.obs[0].clone(), s.targets.values.clone(), (s.targets.features or {})[rows[g]])
                for g, s in enumerate(singles)]  # fmt: skip
        targets = Targets(
            torch.cat([kept[g][1] for g in order]),
            rectangle.valid,
            rectangle.temperature,
            {rows[g]: kept[g][2] for g in order},
        )
        batch = dataclasses.replace(
            singles[0], obs=[kept[g][0] for g in order], targets=targets, weights=torch.ones(2, 8), tasks=None
        )
        assert sum(len(o) for o in batch.obs) == 8 * 2
        learner.step(batch)
        new = copies(parts.student)
        back = [parts.suite.axis.index(a) for a in fixed.suite.axis]
        for key in ("output.weight", "output.bias"):
            new[key] = new[key][back]
        after.append((weights, new))
    moved = [k for k in after[0][1] if not torch.equal(after[0][0][k], after[0][1][k])]
    assert "fc.weight" in moved
    for key in after[0][1]:
        torch.testing.assert_close(after[0][1][key], after[1][1][key], rtol=0, atol=1e-6)


def test_the_codes_adam() -> None:
    """Parisotto et al. 2016: g = 1 gives a first step of 2.2822e-4 and, in the end, 1.11249e-3."""
    w = torch.zeros(1, dtype=FLOAT, requires_grad=True)
    optimizer, before, taken = AuthorsAdam([w], lr=2.5e-4), 0.0, []
    for _ in range(600):
        w.grad = torch.ones(1, dtype=FLOAT)
        optimizer.step()
        taken.append(before - w.item())
        before = w.item()
    assert taken[0] == pytest.approx(2.2822e-4, rel=1e-4)
    assert taken[-1] == pytest.approx(1.11249e-3, rel=1e-4)


def test_the_codes_adam_belongs_to_sums_and_ours_takes_means() -> None:
    """16 equal samples: the code sums their gradients under eps 0.01, ours averages under eps 0.01 / 16^2."""
    recipe = small(learner={"optimizer": "actor_mimic_adam", "batch_size": 8, "learning_rate": 2.5e-4})
    optimizer = build.learner(parts_of(recipe)).optimizer
    assert isinstance(optimizer, AuthorsAdam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["rho"]) == (2.5e-4, 0.95)
    summed, averaged = (torch.zeros(1, dtype=FLOAT, requires_grad=True) for _ in range(2))
    code, ours = AuthorsAdam([summed]), AuthorsAdam([averaged], eps=group["eps"])
    for g in (0.03, -0.2, 0.001):
        summed.grad, averaged.grad = torch.full_like(summed, 16 * g), torch.full_like(averaged, g)
        code.step()
        ours.step()
        assert averaged.item() == pytest.approx(summed.item(), rel=1e-12)


# ---------------------------------------------------------------------------------------------------- networks, recipes
GAMES = [Task(f"game-{g}", "atari", ATARI_AXIS[: 3 + g], (4, 84, 84), stack=4) for g in range(8)]


@pytest.mark.parametrize(
    "name, options, games, expected",
    [
        ("mimic", {}, 8, 1_693_362),  # AMN = MDQN, section 5.1 and App. C
        ("task_heads", {}, 8, 13_001_008),  # MCDQN, App. C
        ("amn-large", {}, 13, 35_216_146),  # App. D
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], games: int, expected: int) -> None:
    suite = Suite(tuple(dataclasses.replace(GAMES[g % 8], name=f"game-{g}") for g in range(games)))
    with torch.device("meta"):
        _, student = make_named(name, suite, options)
    assert count(student) == expected
    if name == "amn-large":
        assert count(FeatureRegression(1024, [512])) == 524_800
        assert count(FeatureRegression(1024, [512] * 13)) == 6_822_400


def test_the_large_network_is_rebuilt_from_its_description() -> None:
    suite = Suite((GAMES[0], GAMES[1]))
    shape = {"channels": [8, 8, 6, 6], "hidden": [24, 16]}
    student = nets.make("mimic", suite, **shape)
    obs = [torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8) for _ in range(2)]
    out = student(obs)
    assert out.logits.shape == (2, 2, 18)
    assert out.features.shape == (2, 2, 16)
    assert float(out.features.detach().min()) == 0.0  # after the ReLU
    again = nets.make("mimic", suite, **student.description())
    again.load_state_dict(student.state_dict())
    torch.testing.assert_close(again(obs).logits, out.logits)


def test_the_screen_after_each_layer() -> None:
    """84 -> 20 -> 9 -> 7 -> 5: 512 channels make 12,800 features."""
    assert screen_features((32, 64, 64)) == 3136
    assert screen_features((256, 512, 512, 512)) == 12_800
    for channels in ((8, 8), (8,) * 7):
        with pytest.raises(ValueError, match="three to six layers"):
            screen_features(channels)


def test_the_recipes_are_the_papers() -> None:
    found = {name: DistillRecipe.parse(read(name)[0], name) for name in ("actor-mimic", "actor-mimic-code")}
    text, code = found["actor-mimic"], found["actor-mimic-code"]
    assert (len(text.teachers), len(code.teachers)) == (8, 13)
    for recipe in (text, code):
        assert (recipe.objective.loss, recipe.objective.temperature) == (CROSS_ENTROPY, 1.0)
        assert (recipe.behaviour.who, recipe.memory.capacity) == ("student", 100_000)
        assert {recipe.behaviour.epsilon(n) for n in (0, 10_000, 10**7)} == {0.1}
        assert (recipe.learner.batch_size, recipe.learner.learning_rate) == (8, 2.5e-4)
        assert (recipe.schedule.collect, recipe.schedule.updates, recipe.schedule.games) == (4, 1, "joint")
    assert (text.learner.optimizer, code.learner.optimizer) == ("adam", "actor_mimic_adam")
    assert text.objective.features is None
    assert code.objective.features == FeatureSettings(beta=0.01, half=True)
    assert 4 * text.schedule.total_updates == 25_000_000
    assert 4 * code.schedule.total_updates == 4_000_000
    assert code.student.options == {"channels": [256, 512, 512, 512], "hidden": [2048, 1024]}
    smaller = resolve(DistillRecipe, *read("actor-mimic-small"), {"objective.features.beta": 0.02})
    assert smaller.objective.features == FeatureSettings(beta=0.02)


# ------------------------------------------------------------------------------------------------------- as a user does
def test_a_run_keeps_its_projections_out_of_the_student_and_in_its_checkpoints(tmp_path: Path) -> None:
    teachers = [fitted_teacher(n) for n in NAMES]
    recipe = small(objective={"loss": CROSS_ENTROPY, "features": FEATURES}, schedule={"total_updates": 40})
    out = tmp_path / "run"
    api.distill(recipe, out, teachers=teachers, inspect=False)
    names = load_file(out / "student.safetensors")
    plain = build.make_student(DistillRecipe.parse({"teachers": list(NAMES), **small()}, "x"),
                               Suite(tuple(t.task for t in teachers)), teachers, torch.device("cpu"))  # fmt: skip
    assert names.keys() == plain.state_dict().keys()
    first = latest(out / "checkpoints")
    assert first is not None
    assert first.tensors["beside"].keys() == {f"projections.{g}.{k}" for g in range(2) for k in ("weight", "bias")}
    longer = {**recipe, "schedule": {**recipe["schedule"], "total_updates": 41}}
    api.distill(longer, out, teachers=teachers, inspect=False, resume=True)
    second = latest(out / "checkpoints")
    assert second is not None
    fresh = build.learner(parts_of(recipe, teachers)).beside
    assert fresh is not None
    for key, before in first.tensors["beside"].items():
        assert (before - fresh.state_dict()[key]).abs().max() > 0.02, key
        moved = (second.tensors["beside"][key] - before).abs().max()
        assert 0 < moved < 0.01, key  # one Adam step of 3e-3 from where it was, not from a fresh start


def test_a_teacher_without_features_is_one_line() -> None:
    with pytest.raises(UserError, match=r"objective\.features: the teacher of catch shows no features") as refused:
        parts_of(small(objective={"features": FEATURES}), [exact_teacher(n) for n in NAMES])
    assert "\n" not in str(refused.value)
    parts_of(small(objective={"features": None}), [exact_teacher(n) for n in NAMES])


@pytest.mark.parametrize(
    "features, match",
    [({"bet": 1.0}, "did you mean 'beta'"), ({"beta": -1}, "greater than or equal to 0"), ("yes", "features")],
)
def test_mistakes_in_the_settings_are_one_line(tmp_path: Path, features: Any, match: str) -> None:
    content = {"teachers": [str(write_teacher(tmp_path / "t", "catch"))], "objective": {"features": features}}
    with pytest.raises(UserError, match=match) as refused:
        DistillRecipe.parse(content, "recipe")
    assert "\n" not in str(refused.value)


def test_an_unknown_loss() -> None:
    with pytest.raises(ValueError, match="unknown loss 'ce'"):
        actor_mimic("ce")
