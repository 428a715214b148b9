"""Distral's policies in files: what was saved is what plays, remembers and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from polydistill.algorithms.distral import AGENTS
from polydistill.errors import UserError
from polydistill.evaluation.remembering import draw
from polydistill.policies import load, load_policy
from polydistill.rng import seeded_init
from polydistill.tasks import Task
from polydistill.training import distral_files
from polydistill.training.distral_files import Saved
from polydistill.training.distral_networks import Networks
from polydistill.training.distral_policy import DistralPolicy

TURN = Task("turn", "test", ("LEFT", "RIGHT", "STAY"), (2,), "float32")
PUSH = Task("push", "test", ("x", "y"), (2,), "float32", action_low=(0.0, -10.0), action_high=(1.0, 10.0))
OBS = np.array([[0.5, -1.0], [2.0, 0.25]], np.float32)


def saved(folder: Path, task: Task = TURN, agent: str = "KL+ent_2col") -> Saved:
    tasks = (task, replace(task, name="other"))
    with seeded_init(0):
        made = Saved(Networks(AGENTS[agent], tasks, 6, 5), tasks, agent, 3, 40, 800)
    distral_files.save(folder, made, 6, 5)
    return made


def loaded(folder: Path) -> DistralPolicy:
    policy = load(folder)
    assert isinstance(policy, DistralPolicy)
    return policy


@pytest.mark.parametrize("task", [TURN, PUSH])
def test_what_was_saved_is_loaded(task: Task, tmp_path: Path) -> None:
    made = saved(tmp_path, task)
    policy = loaded(tmp_path)
    assert policy.tasks == made.tasks
    assert (policy.saved.agent, policy.saved.seed, policy.saved.updates, policy.saved.control_steps) == (
        "KL+ent_2col", 3, 40, 800,
    )  # fmt: skip
    play, start = policy.chances("other"), np.ones(2, bool)
    first, memory = play(OBS, start, None)
    second, _ = play(OBS, ~start, memory)
    steps, begins = torch.from_numpy(OBS)[None].expand(2, 2, 2), torch.tensor([[True, True], [False, False]])
    whole = made.nets.look(1, steps, begins, made.nets.empty(2)).policy.detach()
    expected = (whole if task.continuous else whole.softmax(-1)).numpy()
    np.testing.assert_allclose(np.stack([first, second]), expected, atol=1e-6)
    assert not np.allclose(first, second)  # it remembers
    assert not np.allclose(policy.chances("turn" if task is TURN else "push")(OBS, start, None)[0], first)
    alone = policy.chances("other", distilled=True)(OBS, start, None)[0]
    assert made.nets.shared is not None
    shared = made.nets.shared(torch.from_numpy(OBS)[None], torch.from_numpy(start)[None], made.nets.shared.empty(2))
    pi0 = shared.logits[0].detach()
    np.testing.assert_allclose(alone, (pi0 if task.continuous else pi0.softmax(-1)).numpy(), atol=1e-6)


def test_predict(tmp_path: Path) -> None:
    saved(tmp_path)
    policy = loaded(tmp_path)
    chances, memory = policy.chances("turn")(OBS, np.ones(2, bool), None)
    actions, state = policy.predict(OBS, task="turn", episode_start=[True, True])
    assert actions.tolist() == chances.argmax(-1).tolist()
    torch.testing.assert_close(state.own, memory.own)
    torch.testing.assert_close(state.shared, memory.shared)
    one, _ = policy.predict(OBS[0], task="turn")
    assert one == actions[0]
    drawn = [int(policy.predict(OBS[0], task="turn", deterministic=False)[0]) for _ in range(60)]
    assert set(drawn) == {0, 1, 2}  # none is rarer than a tenth here
    assert chances.min() > 0.1
    for wrong, told in (
        (lambda: policy.predict(OBS), "plays turn, other: say which with task="),
        (lambda: policy.predict(OBS, task="trun"), "does not play 'trun'.*'turn'"),
        (lambda: policy.predict(OBS[:, :1], task="turn"), r"turn: expected observations \(2,\) or \(B, 2\)"),
        (lambda: policy.predict(OBS.astype(complex), task="turn"), "expected float32 observations, found complex"),
        (lambda: policy.predict(OBS, task="turn", episode_start=[True]), "2 observations, but episode_start of shape"),
        (lambda: load_policy(tmp_path), "holds Distral's policies, which remember"),
    ):
        with pytest.raises(UserError, match=told):
            wrong()


def test_predict_points_of_a_box(tmp_path: Path) -> None:
    made = saved(tmp_path, PUSH, agent="A3C")
    with torch.no_grad():
        for column in made.nets.own:  # type: ignore[union-attr]
            column.policy.weight.zero_()  # type: ignore[union-attr, operator]
            column.policy.bias.copy_(torch.tensor([0.5, -3.0, 0.0, 0.0]))  # type: ignore[union-attr, operator]
    distral_files.save(tmp_path, made, 6, 5)
    policy = loaded(tmp_path)
    actions, _ = policy.predict(OBS, task="push")
    np.testing.assert_allclose(actions, [[0.75, -10], [0.75, -10]])  # 0.5 of -1 to 1 is three quarters; -3 is outside
    chances, _ = policy.chances("push")(OBS, np.ones(2, bool), None)
    np.testing.assert_allclose(chances[0], [[0.5, -3], [0.6932471806, 0.6932471806]], rtol=1e-6)
    many = draw(PUSH, np.repeat(chances[:1], 40_000, 0), np.random.default_rng(0))
    np.testing.assert_allclose(many.mean(0), [0.5, -3], atol=0.02)
    np.testing.assert_allclose(many.var(0), [0.6932, 0.6932], atol=0.02)
    with pytest.raises(UserError, match="A3C has no distilled policy; the KL agents have"):
        policy.chances("push", distilled=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"agent": "A4C"}, "damaged or not Distral's .*A4C"),
        ({"hidden": 7}, "tensors do not fit"),
        ({"hidden": -1}, "damaged or not Distral's"),
        ({"tasks": [{"name": "turn"}]}, "'kind' is missing"),
        ({"tasks": []}, "damaged or not Distral's"),
        ({"updates": "many"}, "damaged or not Distral's .*whole numbers"),
    ],
)
def test_damaged_files(change: dict[str, object], told: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=told):
        load(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="damaged or not Distral's"):
        load(tmp_path)


def test_missing_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "policies.safetensors").unlink()
    with pytest.raises(UserError, match=r"policies\.safetensors"):
        load(tmp_path)
