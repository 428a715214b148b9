"""A trained network on another task: every tensor where it belongs, outputs by their meanings, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polydistill import nets
from polydistill.envs.catch import catch_task
from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError
from polydistill.evaluation.protocol import Protocol
from polydistill.nets.store import save_student
from polydistill.nets.student import Student
from polydistill.rng import seeded_init
from polydistill.tasks import ATARI_AXIS, Suite, Task
from polydistill.teachers.bodies import BodyNetwork
from polydistill.teachers.sources import RECURRENT, guide, open_source
from polydistill.teachers.zoo import Network, build_network, load_teacher, save_teacher
from polydistill.training import distral_files
from polydistill.training.shadow import Shadow, ShadowSettings
from polydistill.training.student_folder import Scored, complete
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
    """Parisotto et al. 2016, on Atari's 18 outputs."""
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
        ("objective: {loss: nll, temperature: 0.01}", False, 1.0),  # fitted to the best action: no Q / tau
        ("objective: {loss: js, temperature: 0.02}", False, 0.02),
        ("objective: {loss: reverse_kl, temperature: 0.02}", False, 0.02),
        ("objective: {loss: huber, temperature: 0.01}", True, 1.0),
        ("shadow: {loss: kl, temperature: 0.01}", False, 0.01),
        ("shadow: {loss: nll, temperature: 0.01}", False, 1.0),
        ("shadow: {loss: mse, temperature: 0.01}", True, 1.0),
        ("shadow: null", False, 1.0),
        ("objective: {loss: kl, temperature: hot}", False, 1.0),
        ("dqn: {gamma: 0.99}", True, 1.0),
        ("[", False, 1.0),
    ],
)
def test_what_its_outputs_are(tmp_path: Path, recipe: str, values: bool, temperature: float) -> None:
    student_at(tmp_path, "mimic")
    (tmp_path / "recipe.yaml").write_text(recipe)
    source = open_source(tmp_path)
    assert (source.values, source.temperatures) == (values, (temperature, temperature))


@pytest.mark.parametrize("group", ["objective", "shadow"])
def test_a_teacher_of_logits_was_asked_at_1(tmp_path: Path, group: str) -> None:
    """As `build.temperatures` has it; what the run knows of each teacher stands in run.json."""
    student_at(tmp_path, "mimic")
    (tmp_path / "recipe.yaml").write_text(f"{group}: {{loss: kl, temperature: 0.01}}")
    wind, mirror = ({"name": t.name} for t in TASKS.tasks)
    for told, temperatures in (
        ([wind, {**mirror, "teacher_card": {"kind": "logits"}}], (0.01, 1.0)),
        ([{**mirror, "teacher_kind": "logits"}, wind], (0.01, 1.0)),  # by name
        ([{**wind, "teacher_kind": "q", "teacher_card": {"kind": "logits"}}, mirror], (0.01, 0.01)),
        ([{**wind, "teacher_card": None}, mirror], (0.01, 0.01)),
        ("damaged", (0.01, 0.01)),
        ([7, {"name": [], "teacher_card": 3}], (0.01, 0.01)),
    ):
        (tmp_path / "run.json").write_text(json.dumps({"tasks": told}))
        assert open_source(tmp_path).temperatures == temperatures
    (tmp_path / "run.json").write_text("[]")
    assert open_source(tmp_path).temperatures == (0.01, 0.01)


def test_a_shadow_tells_what_it_learnt_from(tmp_path: Path) -> None:
    """What a student that follows a learner leaves is read as what it is."""
    task = catch_task("catch")
    for kind, loss, values, temperature in (
        ("q", "kl", False, 0.01), ("q", "mse", True, 1.0), ("logits", "kl", False, 1.0),
    ):  # fmt: skip
        settings = ShadowSettings(student="mimic", options={"hidden": 8}, loss=loss, capacity=2_000)  # type: ignore[arg-type]
        shadow = Shadow(task, settings, 2, kind=kind)  # type: ignore[arg-type]
        protocol = Protocol(episodes=1)
        teacher = Scored(tmp_path / "teacher", protocol, shadow.evaluate(protocol), 0.0)
        out = tmp_path / f"{kind}-{loss}"
        shadow.save(out)
        complete(out, shadow, teacher, [], {}, 0)
        source = open_source(out)
        assert (source.values, source.temperatures) == (values, (temperature,))


def test_outputs_that_no_source_task_had_are_not_trained(tmp_path: Path) -> None:
    """A shared layer of 18 rows is kept whole; which of them were never learnt is told, and none of them guides."""
    small = {"channels": [4, 4, 4], "hidden": 8}
    target = atari("breakout", 0, 1, 3, 4)
    student_at(tmp_path / "s", "mimic", Suite((atari("freeway", 0, 2, 5), atari("x", 0, 3))), **small)
    source = open_source(tmp_path / "s")
    made = source.network_for(target, "keep18")
    assert (made.new, made.untrained) == ((), ("FIRE", "LEFT"))
    assert source.network_for(target, "reinit").untrained == ()
    with pytest.raises(UserError, match=r"no task of .*s has FIRE, LEFT of breakout, so it cannot guide it"):
        guide(tmp_path / "s", target)
    student_at(tmp_path / "heads", "task_heads", Suite((atari("freeway", 0, 2, 5), atari("x", 0, 1, 3, 4))), **small)
    heads = open_source(tmp_path / "heads")  # each task has rows of its own: what the other learnt is not there
    assert heads.network_for(target, "keep18").untrained == ("FIRE", "RIGHT", "LEFT")
    assert heads.network_for(target, "keep18", like="x").untrained == ()


def test_a_transferred_teacher_knows_its_own_game(tmp_path: Path) -> None:
    """Reinforcement learning on Breakout trained four of the 18 rows that it kept."""
    breakout, pong = resolve_task("breakout"), resolve_task("pong")
    student_at(tmp_path / "s", "mimic", Suite((pong,)), channels=[4, 4, 4], hidden=8)
    made = open_source(tmp_path / "s").network_for(breakout, "keep18")
    assert made.untrained == ()
    network = made.network.model_dump(mode="json")
    save_teacher(tmp_path / "t", made.net, {"task": breakout.to_dict(), "network": network, "kind": "q"})
    again = open_source(tmp_path / "t").network_for(pong, "keep18")
    assert (again.new, again.untrained) == ((), ("RIGHTFIRE", "LEFTFIRE"))


def test_what_is_asked_is_what_load_teacher_gives(tmp_path: Path) -> None:
    """Training runs the hidden layer of a `bf16` network in bfloat16; a guide's and a compared one's are float32."""
    task, network = catch_task("catch"), Network(hidden=64, bf16=True)
    with seeded_init(4, "bf16"):
        save_teacher(
            tmp_path, build_network(task, network), {"task": task.to_dict(), "network": network.model_dump(mode="json")}
        )
    obs = torch.from_numpy(states("catch"))
    told = load_teacher(tmp_path)(obs).values
    assert torch.equal(guide(tmp_path, task)[0](obs), told)
    made = open_source(tmp_path).network_for(task, "keep18", training=False)
    assert torch.equal(made.net(obs), told)
    learning: Any = open_source(tmp_path).network_for(task, "keep18").net
    assert learning.bf16_hidden
    assert not torch.equal(learning(obs), told)


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


def test_other_pixels_are_other_observations(tmp_path: Path) -> None:
    """Shape and dtype are the same under both profiles; what a network knows of one says nothing of the other."""
    small = {"channels": [4, 4, 4], "hidden": 8}
    pong = {p: resolve_task("pong", profile=p) for p in ("ale", "nature")}
    breakout = {p: resolve_task("breakout", profile=p) for p in ("ale", "nature")}
    student_at(tmp_path / "one", "mimic", Suite((pong["ale"],)), **small)
    student_at(tmp_path / "two", "mimic", Suite((pong["ale"], breakout["nature"])), **small)
    one, two = open_source(tmp_path / "one"), open_source(tmp_path / "two")
    expected = (
        r"observations differ: .*one expects uint8 \(4, 84, 84\) with ale pixels, found uint8 \(4, 84, 84\) with "
        "nature pixels in pong"
    )
    with pytest.raises(UserError, match=expected):
        guide(tmp_path / "one", pong["nature"])
    assert not any(p.requires_grad for p in guide(tmp_path / "one", pong["ale"])[0].parameters())
    assert one.profile_for(breakout["nature"]) == "ale"
    assert one.profile_for(pong["ale"], asked="ale") == "ale"
    with pytest.raises(UserError, match=r"profile nature: .*one has seen other pixels \(pong ale\); leave"):
        one.profile_for(breakout["ale"], asked="nature")
    assert [two.row_for(t) for t in (pong["ale"], pong["nature"], breakout["nature"])] == [0, 1, 1]
    assert (two.profile_for(breakout["ale"]), two.profile_for(pong["nature"])) == ("nature", "ale")  # the task's own
    freeway = resolve_task("freeway")
    with pytest.raises(UserError, match=r"two has seen two kinds of pixels \(pong ale, breakout nature\): choose"):
        two.profile_for(freeway)
    assert [two.profile_for(freeway, asked=p) for p in ("ale", "nature")] == ["ale", "nature"]
    assert two.profile_for(freeway, like="breakout") == "nature"
    student_at(tmp_path / "catch", "mimic")
    assert open_source(tmp_path / "catch").profile_for(freeway, asked="nature") == "nature"


def test_distrals_policies_are_no_source(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")  # it is finished, so a word of --resume would be wrong
    (tmp_path / RECURRENT).write_text("{}")
    assert distral_files.CONFIG == RECURRENT
    for use in (open_source, lambda path: guide(path, catch_task("catch"))):
        with pytest.raises(UserError, match="holds Distral's policies, which are recurrent: a Q-learner") as said:
            use(tmp_path)
        assert "\n" not in str(said.value)


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
