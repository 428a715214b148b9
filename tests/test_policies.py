"""``predict`` as Stable-Baselines3 users know it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import polydistill
from polydistill import nets
from polydistill.envs.catch import catch_task
from polydistill.errors import UserError
from polydistill.nets.store import save_student
from polydistill.nets.student import Student
from polydistill.policies import Policy, of_student, of_teacher
from polydistill.rng import seeded_init
from polydistill.tasks import Suite
from tests.distilling import NAMES, exact_teacher, states, write_teacher

SUITE = Suite(tuple(catch_task(n) for n in NAMES))


def student() -> Student:
    with seeded_init(1):
        net = nets.make("mimic", SUITE, hidden=32)
    with torch.no_grad():
        net.output.weight *= 20  # so that some actions are likely and some are not
    return net.eval()


@pytest.fixture(scope="module")
def policy() -> Policy:
    return of_student(student(), Path("runs/x"))


def logits(name: str, obs: np.ndarray) -> np.ndarray:
    g = NAMES.index(name)
    with torch.no_grad():
        return student().act(torch.from_numpy(obs), g).numpy()[:, list(SUITE.actions[g])]


@pytest.mark.parametrize("name", NAMES)
def test_the_best_of_the_tasks_own_actions(policy: Policy, name: str) -> None:
    obs = states(name)[:50]
    actions, state = policy.predict(obs, task=name)
    assert state is None
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, logits(name, obs).argmax(1))
    assert actions.max() < catch_task(name).n_actions
    np.testing.assert_array_equal(policy.greedy(name)(obs), actions)
    np.testing.assert_allclose(policy.outputs(name)(obs), logits(name, obs), rtol=1e-6)


def test_single_and_batch(policy: Policy) -> None:
    obs = states("catch")[:5]
    batch, _ = policy.predict(obs, task="catch")
    assert batch.shape == (5,)
    for i in range(5):
        single, _ = policy.predict(obs[i], task="catch")
        assert single.shape == ()
        assert single == batch[i]


def test_state_passes_through(policy: Policy) -> None:
    state = (np.zeros(3),)
    _, back = policy.predict(states("catch")[0], state, np.array([True]), task="catch")
    assert back is state


@pytest.mark.parametrize("change", ["reversed", "every other", "read-only"])
def test_any_layout_of_the_observation(policy: Policy, change: str) -> None:
    obs = states("catch")[:20]
    given = {
        "reversed": obs[::-1],
        "every other": obs[::2],
        "read-only": obs.copy(),
    }[change]
    expected = np.array(given, np.uint8)
    if change == "read-only":
        given.flags.writeable = False
    np.testing.assert_array_equal(policy.predict(given, task="catch")[0], logits("catch", expected).argmax(1))


def test_wrong_shapes_and_dtypes_are_refused(policy: Policy) -> None:
    with pytest.raises(UserError, match=r"catch: expected .* \(1, 10, 5\) or \(B, 1, 10, 5\), found \(10, 5\)"):
        policy.predict(states("catch")[0, 0], task="catch")
    with pytest.raises(UserError, match=r"found \(2, 1, 10, 8\)"):
        policy.predict(np.zeros((2, 1, 10, 8), np.uint8), task="catch")
    with pytest.raises(UserError, match="catch: expected uint8 observations, found float64"):
        policy.predict(states("catch")[0] / 255, task="catch")


def test_several_tasks_need_a_name(policy: Policy) -> None:
    with pytest.raises(UserError, match="plays catch, catch-wind: say which with task="):
        policy.predict(states("catch")[0])
    with pytest.raises(UserError, match=r"does not play 'catch-wnd': did you mean 'catch-wind'?"):
        policy.predict(states("catch")[0], task="catch-wnd")
    alone = of_teacher(exact_teacher("catch"))
    assert alone.predict(states("catch"))[0].shape == (len(states("catch")),)


def test_draws_follow_the_softmax_of_the_logits(policy: Policy) -> None:
    rng = np.random.default_rng(0)
    obs = states("catch")
    prob = np.exp(logits("catch", obs))
    prob /= prob.sum(1, keepdims=True)
    chosen = int(np.argmax(-(prob * np.log(prob)).sum(1)))  # the least certain state
    n = 20_000
    drawn, _ = policy.predict(np.repeat(obs[chosen : chosen + 1], n, 0), deterministic=False, task="catch", rng=rng)
    expected = n * prob[chosen]
    assert expected.min() > 50
    chi = ((np.bincount(drawn, minlength=3) - expected) ** 2 / expected).sum()
    assert chi < 13.8  # 2 degrees of freedom: once in 1,000
    again, _ = policy.predict(obs, deterministic=False, task="catch", rng=np.random.default_rng(3))
    same, _ = policy.predict(obs, deterministic=False, task="catch", rng=np.random.default_rng(3))
    np.testing.assert_array_equal(again, same)


def test_a_q_network_explores_by_epsilon() -> None:
    teacher = of_teacher(exact_teacher("catch"))
    assert teacher.kind == "q"
    obs = np.repeat(states("catch")[:1], 20_000, 0)
    best = int(teacher.predict(obs[0])[0])
    drawn, _ = teacher.predict(obs, deterministic=False, rng=np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=3)
    others = np.delete(counts, best)
    assert counts.sum() == 20_000
    assert abs(others - 20_000 * 0.05 / 3).max() < 80  # 4.4 standard deviations


def test_load_finds_students_and_teachers(tmp_path: Path) -> None:
    save_student(tmp_path, student(), "mimic")
    loaded = polydistill.load(tmp_path)
    obs = states("catch-wind")
    np.testing.assert_array_equal(loaded.predict(obs, task="catch-wind")[0], logits("catch-wind", obs).argmax(1))
    teacher = polydistill.load(str(write_teacher(tmp_path / "teacher", "catch")), device="auto")
    assert teacher.kind == "q"
    assert [t.name for t in teacher.suite.tasks] == ["catch"]
    with pytest.raises(UserError, match="--device cude: not available"):
        polydistill.load(tmp_path, device="cude")
    with pytest.raises(UserError, match="no policy at"):
        polydistill.load(tmp_path / "none")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="has no student yet"):
        polydistill.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 9'),
        ('"kind": "mimic"', '"kind": "mimik"'),
        ('"hidden": 32', '"hidden": "many"'),
        ('"hidden": 32', '"hiden": 32'),
        ('"hidden": 32', '"hidden": -1'),
        ('"torsos": null', '"torsos": 5'),
        ('"LEFT"', '"FIRE"'),
        ('"bf16": false', '"bf1": false'),
        ('"bf16": false', '"bf16": "x"'),
        ('"options": {', '"options": 5, "x": {'),
        ("{", "["),
    ],
)
def test_a_students_config_that_makes_no_sense(tmp_path: Path, old: str, new: str) -> None:
    save_student(tmp_path, student(), "mimic")
    config = tmp_path / "config.json"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new, 1))
    with pytest.raises(UserError) as error:
        polydistill.load(tmp_path)
    assert "\n" not in str(error.value)
