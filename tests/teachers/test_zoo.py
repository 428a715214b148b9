"""Teachers as folders: what is written comes back, and what does not fit is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from polydistill.envs import atari
from polydistill.envs.catch import catch_task
from polydistill.errors import UserError
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import (
    CARD,
    WEIGHTS,
    Network,
    build_network,
    load_teacher,
    require_teachers,
    save_teacher,
    write_card,
)
from tests.distilling import fitted_net, states, write_teacher

FREEWAY = {"name": "freeway", "kind": "atari", "obs_shape": [4, 84, 84], "obs_profile": "ale", "stack": 4}


def refused(folder: Path, match: str) -> str:
    with pytest.raises(UserError, match=match) as error:
        load_teacher(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def change_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD).read_text()) | changes
    (folder / CARD).write_text(json.dumps({k: v for k, v in card.items() if v is not ...}))


def change_weights(folder: Path, **changes: Any) -> None:
    weights = load_file(folder / WEIGHTS)
    for name, change in changes.items():
        key = name.replace("__", ".")
        new = change(weights.pop(key)) if key in weights else change(None)
        if new is not None:
            weights[key] = new
    save_file(weights, folder / WEIGHTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_teacher(
        tmp_path / "zoo" / "catch", "catch", scores={"noop": {"mean": 4.5}, "random": -3.0}, note="mine"
    )


def test_round_trip(folder: Path) -> None:
    teacher = load_teacher(folder)
    assert load_file(folder / WEIGHTS)["output.weight"].dtype == torch.float16
    assert teacher.task == catch_task("catch")
    assert teacher.path == folder
    assert teacher.card["note"] == "mine"
    assert (teacher.score("noop"), teacher.score("random"), teacher.score("sticky")) == (4.5, -3.0, None)
    obs = torch.from_numpy(states("catch"))
    original = fitted_net("catch").half().float()
    torch.testing.assert_close(teacher(obs).values, original(obs), rtol=0, atol=0)
    np.testing.assert_array_equal(teacher.greedy(states("catch")), original(obs).argmax(-1).numpy())
    assert not teacher.net.training
    assert not any(p.requires_grad for p in teacher.net.parameters())
    save_teacher(folder, teacher.net, teacher.card)  # float16 -> float32 -> float16 loses nothing
    again = load_teacher(folder)
    assert all(torch.equal(v, again.net.state_dict()[k]) for k, v in teacher.net.state_dict().items())


def test_the_card_can_be_rewritten_alone(folder: Path) -> None:
    weights = (folder / WEIGHTS).read_bytes()
    write_card(folder, {k: v for k, v in load_teacher(folder).card.items() if k != "format"} | {"note": "new"})
    assert load_teacher(folder).card["note"] == "new"
    assert (folder / WEIGHTS).read_bytes() == weights
    assert sorted(p.name for p in folder.iterdir()) == [CARD, WEIGHTS]


@pytest.mark.parametrize("kind", ["q", "logits"])
def test_what_it_holds_is_said(folder: Path, kind: str) -> None:
    change_card(folder, kind=kind)
    assert load_teacher(folder)(torch.from_numpy(states("catch")[:2])).kind == kind


def test_a_weight_too_large_for_float16_is_not_written(tmp_path: Path) -> None:
    net = fitted_net("catch")
    with torch.no_grad():
        net.output.bias[0] = 1e5
    with pytest.raises(UserError, match=r"output.bias holds weights that are NaN, infinite or too large"):
        save_teacher(tmp_path / "x", net, {})
    assert not list((tmp_path / "x").iterdir())


@pytest.mark.parametrize("gone", [CARD, WEIGHTS])
def test_a_missing_file(folder: Path, gone: str) -> None:
    (folder / gone).unlink()
    refused(folder, f"no teacher at {folder}: {gone} is missing")
    refused(folder / "nowhere", "no teacher at")


def test_missing_teachers_are_named_together_with_the_command_that_trains_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = folder.parent
    monkeypatch.chdir(zoo)  # away from the project's own zoo
    (zoo / "qbert").mkdir()  # a folder that is there is load_teacher's business
    require_teachers([folder, zoo / "qbert", zoo / "catc", "nowhere/of-mine"])
    for parent, out in (("zoo", ""), ("my zoo", " --out 'my zoo'")):
        with pytest.raises(UserError) as error:
            require_teachers([folder, f"{parent}/enduro", f"{parent}/ms_pacman", f"{parent}/enduro"])
        assert str(error.value) == (
            f"no teacher at {parent}/enduro, {parent}/ms_pacman: start where the folder {parent} is, or train them "
            f"with `polydistill teach --tasks enduro ms_pacman{out}`"
        )


@pytest.mark.parametrize("keep", [0, 4, 9, 100, -100, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, r"teacher.safetensors: truncated or not a safetensors file")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x04exec\x94",  # a pickle
        b"PK\x03\x04" + b"\0" * 400,  # what torch.save writes
        b"\xff" * 8 + b"{}",  # a header of 2^64 bytes
        b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"w": {"dtype": "F32"}}',
        (74).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}   ',
    ],
)
def test_hostile_weights(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    refused(folder, r"not a safetensors file")


def test_every_tensor_that_does_not_fit_is_listed(folder: Path) -> None:
    change_weights(
        folder,
        output__bias=lambda v: v[:2].clone(),
        hidden__weight=lambda v: v.T[:5].contiguous(),
        hidden__bias=lambda v: None,
        extra=lambda v: torch.zeros(2),
    )
    said = refused(folder, "the tensors do not fit this network")
    for part in (
        "extra: expected no such tensor, found (2,)",
        "hidden.bias: expected (64,), found nothing",
        "hidden.weight: expected (64, 64), found (5, 64)",
        "output.bias: expected (3,), found (2,)",
    ):
        assert part in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(folder: Path, value: float) -> None:
    change_weights(folder, output__bias=lambda v: v.index_fill(0, torch.tensor([1]), value))
    refused(folder, "output.bias holds NaN or infinite weights")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2}, "card format 2, this version reads 1"),
        ({"format": None}, "card format None"),
        ({"task": ...}, "'task' is missing"),
        ({"network": ...}, "'network' is missing"),
        ({"network": None}, "network: "),
        ({"network": "nature"}, "network: "),
        ({"network": {"hiden": 64}}, "unknown key 'network.hiden'; did you mean 'hidden'?"),
        ({"network": {"hidden": 10**12}}, "network.hidden: "),
        ({"network": {"hidden": -1}}, "network.hidden: "),
        ({"network": {"channels": [32, 64]}}, "network.channels"),
        ({"network": {"hidden": 32}}, r"hidden.weight: expected \(32, 64\), found \(64, 64\)"),
        ({"kind": "gaussian"}, "kind: Input should be 'q' or 'logits'"),
        ({"rom_sha256": 5}, "rom_sha256: "),
        ({"scores": None}, "scores: "),
        ({"scores": {"noop": {}}}, "'scores.noop.mean' is missing"),
        ({"scores": {"random": "low"}}, "scores.random: "),
        ({"task": 5}, "task: "),
        ({"task": {"name": "catch"}}, "'kind' is missing"),
    ],
)
def test_a_card_that_makes_no_sense(folder: Path, changes: dict[str, Any], match: str) -> None:
    change_card(folder, **changes)
    assert "card.json" in refused(folder, match) or "expected" in match


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\x00\xff", "[" * 100_000])
def test_a_card_that_is_none(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text)
    refused(folder, r"card.json: (damaged|card format)")


def test_a_teacher_for_another_game_or_action_set(folder: Path) -> None:
    task = catch_task("catch").to_dict()
    change_card(folder, task=task | {"name": "catchh"})
    refused(folder, "unknown task 'catchh'; did you mean 'catch'?")
    change_card(folder, task=task | {"action_meanings": ["LEFT", "NOOP", "FIRE"]})
    refused(folder, "acts with LEFT, NOOP, FIRE, but catch here has LEFT, NOOP, RIGHT")
    change_card(folder, task=task | {"obs_shape": [1, 10, 6]})
    refused(folder, r"sees \(1, 10, 6\), but catch here shows \(1, 10, 5\)")
    change_card(folder, task=catch_task("catch-wind").to_dict())
    refused(folder, r"output.weight: expected \(2, 64\), found \(3, 64\)")


def atari_folder(folder: Path, **card: Any) -> Path:
    meanings = ["NOOP", "UP", "DOWN"]
    task = FREEWAY | {"action_meanings": meanings, "obs_dtype": "uint8"}
    network = {"channels": [2, 2, 2], "hidden": 4}
    net = build_network(Task.from_dict(task), Network.model_validate(network))
    save_teacher(folder, net, {"task": task, "network": network} | card)
    return folder


def test_an_atari_teacher_belongs_to_its_rom(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    folder = atari_folder(tmp_path / "freeway", rom_sha256=atari.rom_hash("freeway"))
    assert load_teacher(folder).task.action_meanings == ("NOOP", "UP", "DOWN")
    change_card(folder, rom_sha256="0" * 64)
    refused(folder, "trained on another ROM of freeway")
    pong = json.loads((folder / CARD).read_text())["task"] | {"name": "pong"}
    change_card(folder, rom_sha256=None, task=pong)
    refused(folder, "acts with NOOP, UP, DOWN, but pong here has NOOP, FIRE")
    change_card(folder, task=pong | {"name": "pongg"})
    refused(folder, "unknown task 'pongg'; did you mean 'pong'?")


class Constant(nn.Module):
    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(obs), -1).to(torch.float64)


def test_a_teacher_made_in_python_is_frozen_and_checked() -> None:
    task = catch_task("catch")
    net = Constant(torch.tensor([1.0, 3.0, 2.0]))
    teacher = Teacher(task, net, "logits")
    output = teacher(torch.zeros(4, 1, 10, 5, dtype=torch.uint8))
    assert (output.kind, output.values.dtype, tuple(output.values.shape)) == ("logits", torch.float32, (4, 3))
    assert not output.values.requires_grad
    assert not net.value.requires_grad
    assert not net.training
    assert teacher.greedy(np.zeros((2, 1, 10, 5), np.uint8)).tolist() == [1, 1]
    assert teacher.score("noop") is None
    with pytest.raises(UserError, match=r"teacher catch: expected outputs \(2, 3\) .*, found \(2, 4\)"):
        Teacher(task, Constant(torch.zeros(4)))
    with pytest.raises(UserError, match="NaN or infinite on a blank screen"):
        Teacher(task, Constant(torch.tensor([0.0, torch.nan, 0.0])))
