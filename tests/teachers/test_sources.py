"""A trained network on another task: every tensor where it belongs, outputs by their meanings, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polydistill import nets
from polydistill.envs.catch import catch_task
from polydistill.errors import UserError
from polydistill.nets.store import save_student
from polydistill.nets.student import Student
from polydistill.rng import seeded_init
from polydistill.tasks import ATARI_AXIS, Suite, Task
from polydistill.teachers.bodies import BodyNetwork
from polydistill.teachers.sources import guide, open_source
from polydistill.teachers.zoo import Network, build_network
from tests.distilling import OPTIONS, copies, fitted_net, states, write_teacher

TASKS = Suite((catch_task("catch-wind"), catch_task("catch-mirror")))
KINDS: dict[str, dict[str, Any]] = {**OPTIONS, "task_heads": {"hidden": 16}}


def student_at(folder: Path, kind: str, suite: Suite = TASKS, **options: Any) -> Student:
    with seeded_init(1, kind):
        student = nets.make(kind, suite, **(options or KINDS[kind]))
    folder.mkdir(exist_ok=True)
    save_student(folder, student, kind)
    return student


def atari(name: str, *codes: int) -> Task:
    meanings = tuple(ATARI_AXIS[c] for c in codes)
    return Task(name, "atari", meanings, (4, 84, 84), obs_profile="ale", stack=4)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("row", [0, 1])
def test_on_a_source_task_it_is_the_student(tmp_path: Path, kind: str, row: int) -> None:
    student = student_at(tmp_path, kind).eval()
    task = TASKS.tasks[row]
    made = open_source(tmp_path).network_for(task, "keep18")
    assert made.new == ()
    obs = torch.from_numpy(states(task.name))
    own = list(TASKS.actions[row])
    with torch.inference_mode():
        assert torch.allclose(made.net(obs), student.act(obs, row)[:, own], atol=1e-6)
    made.net(obs[:4]).square().sum().backward()
    assert all(p.grad is not None for p in made.net.parameters())  # torsos that were frozen learn now


def test_keep18_changes_no_tensor_and_reinit_the_last_layer_alone(tmp_path: Path) -> None:
    """SPEC 3.11, property 9, on Atari's 18 outputs."""
    small = {"channels": [4, 4, 4], "hidden": [16, 8]}
    student = student_at(
        tmp_path, "mimic", Suite((atari("pong", 0, 1, 3, 4, 11, 12), atari("freeway", 0, 2, 5))), **small
    )
    source, target = open_source(tmp_path), atari("breakout", 0, 1, 3, 4)
    kept, drawn = (source.network_for(target, head).net for head in ("keep18", "reinit"))  # type: ignore[arg-type]
    assert isinstance(kept, BodyNetwork)
    assert isinstance(drawn, BodyNetwork)
    theirs = student.state_dict()
    assert kept.student.state_dict().keys() == theirs.keys()  # no projection of a feature regression either
    assert all(torch.equal(v, theirs[k]) for k, v in kept.student.state_dict().items())
    differ = {k for k, v in drawn.student.state_dict().items() if not torch.equal(v, theirs[k])}
    assert differ == {"output.weight", "output.bias"}
    obs = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(kept(obs), student.act(obs, 0)[:, [0, 1, 3, 4]])
    kept(obs).square().sum().backward()  # actions that the target lacks get exactly nothing
    gradient = kept.student.get_submodule("output").weight.grad
    assert gradient is not None
    assert [i for i in range(18) if gradient[i].abs().sum() > 0] == [0, 1, 3, 4]


def test_outputs_go_by_their_meaning(tmp_path: Path) -> None:
    write_teacher(tmp_path / "t", "catch")
    net, obs = fitted_net("catch").eval(), torch.from_numpy(states("catch"))
    made = open_source(tmp_path / "t").network_for(catch_task("catch-mirror"), "keep18", scale=2.0)
    with torch.inference_mode():
        assert torch.allclose(made.net(obs), 2 * net(obs).flip(1), atol=0.05)  # a teacher's file is float16
    assert made.new == ()
    student_at(tmp_path / "s", "mimic", Suite((catch_task("catch-wind"),)))
    with_noop = open_source(tmp_path / "s").network_for(catch_task("catch"), "keep18", scale=0.5)
    assert with_noop.new == ("NOOP",)
    assert open_source(tmp_path / "s").network_for(catch_task("catch"), "reinit").new == ("LEFT", "NOOP", "RIGHT")


def test_the_scale_is_the_outputs_alone(tmp_path: Path) -> None:
    student_at(tmp_path, "mimic")
    source = open_source(tmp_path)
    one, half = (copies(source.network_for(TASKS.tasks[0], "keep18", s).net) for s in (1.0, 0.5))
    for name, tensor in one.items():
        factor = 0.5 if name.startswith("student.output.") else 1.0
        assert torch.equal(half[name], factor * tensor)


@pytest.mark.parametrize(
    ("recipe", "values", "temperature"),
    [
        ("objective: {loss: kl, temperature: 0.01}", False, 0.01),
        ("objective: {loss: cross_entropy, temperature: 1.0}", False, 1.0),
        ("objective: {loss: mse, temperature: 0.01}", True, 1.0),
        ("dqn: {gamma: 0.99}", True, 1.0),
        ("[", False, 1.0),
    ],
)
def test_what_its_outputs_are(tmp_path: Path, recipe: str, values: bool, temperature: float) -> None:
    student_at(tmp_path, "mimic")
    (tmp_path / "recipe.yaml").write_text(recipe)
    source = open_source(tmp_path)
    assert (source.values, source.temperature) == (values, temperature)


def test_a_card_rebuilds_a_body(tmp_path: Path) -> None:
    student_at(tmp_path, "task_torsos")
    made = open_source(tmp_path).network_for(catch_task("catch"), "keep18", like="catch-mirror")
    card = json.loads(json.dumps(made.network.model_dump(mode="json")))
    again = build_network(catch_task("catch"), Network.model_validate(card))
    again.load_state_dict(made.net.state_dict())
    obs = torch.from_numpy(states("catch"))
    with torch.inference_mode():
        assert torch.equal(again(obs), made.net(obs))


def test_like_names_whose_layers_are_taken(tmp_path: Path) -> None:
    student = student_at(tmp_path, "controllers")
    source, task = open_source(tmp_path), catch_task("catch")
    for like, row in (("catch-wind", 0), ("catch-mirror", 1), (None, 0)):
        net: Any = source.network_for(task, "reinit", like=like).net
        ours = net.student.get_submodule("controllers.0.0").weight
        assert torch.equal(ours, student.get_submodule(f"controllers.{row}.0").weight)
    assert source.row_for(catch_task("catch-mirror")) == 1  # itself before the first
    with pytest.raises(UserError, match="was not trained on 'catch-mirrow': did you mean 'catch-mirror'"):
        source.row_for(task, "catch-mirrow")


def test_refusals(tmp_path: Path) -> None:
    student_at(tmp_path / "s", "mimic")
    with pytest.raises(
        UserError, match=r"observations differ: .*s expects uint8 \(1, 10, 5\), found uint8 \(1, 10, 8\)"
    ):
        open_source(tmp_path / "s").network_for(catch_task("catch-wide"), "keep18")
    with pytest.raises(UserError, match=r"no policy at .*nothing: expected a run"):
        open_source(tmp_path / "nothing")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="cut has no student yet"):
        open_source(tmp_path / "cut")
    student_at(tmp_path / "wind", "mimic", Suite((catch_task("catch-wind"),)))
    with pytest.raises(UserError, match="has no output for NOOP of catch, so it cannot guide it"):
        guide(tmp_path / "wind", catch_task("catch"))
    net, values = guide(tmp_path / "s", catch_task("catch"))
    assert not any(p.requires_grad for p in net.parameters())
    assert not values
