"""Catch suites, their teachers, and small recipes: what the tests of distillation share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polydistill import build, experiments
from polydistill.envs.catch import CatchVec, catch_task, optimal_q
from polydistill.nets.q_network import QNetwork
from polydistill.recipe import DistillRecipe
from polydistill.rng import seeded_init, stream
from polydistill.teachers.base import OutputKind, Teacher
from polydistill.teachers.zoo import Network, build_network, read_card, save_teacher

NAMES = ("catch", "catch-wind")  # other actions, other numbers of them, other best moves


class Exact(nn.Module):
    """The exact optimal Q-values of a catch task, as a network without parameters."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, obs: Tensor) -> Tensor:
        return torch.from_numpy(optimal_q(obs.cpu().numpy(), name=self.name))


def exact_teacher(name: str, kind: OutputKind = "q") -> Teacher:
    return Teacher(catch_task(name), Exact(name), kind)


@cache
def states(name: str) -> np.ndarray:
    """Every observation that 400 steps of random play meet, each once."""
    env, rng = CatchVec(catch_task(name), 16), np.random.default_rng(0)
    seen = [env.reset(3)]
    for _ in range(400):
        seen.append(env.step(rng.integers(0, env.task.n_actions, 16)).obs)
    return np.unique(np.concatenate(seen), axis=0)


@cache
def _fitted(name: str, hidden: int) -> dict[str, Tensor]:
    task, obs = catch_task(name), torch.from_numpy(states(name))
    with seeded_init(0, name):
        net = build_network(task, Network(hidden=hidden))
    q = torch.from_numpy(optimal_q(states(name), name=name))
    target = 4 * (q - q.amax(1, keepdim=True))  # gaps alone: the values themselves take longer to fit than a test has
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        (net(obs) - target).square().mean().backward()
        optimizer.step()
    return net.state_dict()


def fitted_net(name: str, hidden: int = 64) -> QNetwork:
    """A Q-network fitted to the gaps between the exact Q-values: a teacher with a torso that a student can keep."""
    net = build_network(catch_task(name), Network(hidden=hidden))
    net.load_state_dict(_fitted(name, hidden))
    return net


def fitted_teacher(name: str) -> Teacher:
    return Teacher(catch_task(name), fitted_net(name))


def write_teacher(folder: Path, name: str, **card: Any) -> Path:
    """A teacher's folder."""
    base = {"task": catch_task(name).to_dict(), "network": {"hidden": 64}, "kind": "q"}
    save_teacher(folder, fitted_net(name), base | card)
    return folder


OPTIONS: dict[str, dict[str, Any]] = {
    "task_torsos": {"widths": [64, 32]},
    "mimic": {"hidden": 64},
    "controllers": {"hidden": 64, "head": 32},
}


def small(student: str = "mimic", /, **changes: Any) -> dict[str, Any]:
    """A recipe that takes a second; ``changes`` are whole groups of settings or single ones on top."""
    recipe: dict[str, Any] = {
        "student": {"kind": student, "options": OPTIONS[student], "bf16": False},
        "behaviour": {"who": "student", "epsilon_end": 0.1, "epsilon_steps": 500, "num_envs": 4},
        "memory": {"capacity": 2_000, "size": "50MB"},
        "learner": {"batch_size": 16, "optimizer": "adam", "learning_rate": 3e-3},
        "schedule": {"warmup": 200, "collect": 4, "updates": 1, "total_updates": 60},
        "evaluation": {"every": 0, "episodes": 2, "final_episodes": 2},
        "device": "cpu",
    }
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    return recipe


def parts_of(recipe: dict[str, Any], teachers: list[Teacher] | None = None) -> build.Parts:
    teachers = teachers or [fitted_teacher(n) for n in NAMES]
    named = {"teachers": [t.task.name for t in teachers]}
    return build.parts(DistillRecipe.parse({**named, **recipe}, "test"), teachers)


def copies(net: nn.Module) -> dict[str, Tensor]:
    """A network's weights, copied."""
    return {k: v.clone() for k, v in net.state_dict().items()}


def rng(*names: str) -> np.random.Generator:
    return stream(0, *names)


def as_if_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments are planned as if every teacher were there that is not: only its name is looked at."""

    def card(folder: Path) -> dict[str, Any]:
        return read_card(folder) if folder.exists() else {"task": {"name": folder.name}}

    monkeypatch.setattr(experiments, "read_card", card)
    monkeypatch.setattr(experiments, "require_teachers", lambda folders: None)
