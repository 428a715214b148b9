"""Distral's recurrent column: its size, and what it remembers."""

from __future__ import annotations

import torch

from polydistill.nets.columns import Column, Memory
from polydistill.rng import seeded_init
from polydistill.tasks import Task

SCREEN = Task("maze", "doom", ("FORWARD", "LEFT", "RIGHT"), (3, 84, 84))
FLAT = Task("cart", "gymnasium", ("L", "R"), (4,), "float32")


def column(task: Task = FLAT, **sizes: int) -> Column:
    with seeded_init(0):
        return Column(task, task.n_actions, **sizes)


def test_parameters() -> None:
    # Teh et al. 2017: 3,088 + 8,224 + 663,808 + 526,336, and the heads' 3 * 257 + 257.
    assert sum(p.numel() for p in column(SCREEN).parameters()) == 1_201_456 + 4 * 257


def test_a_sequence_is_its_steps() -> None:
    net, obs = column(lstm=8), torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    start = torch.zeros(5, 3, dtype=torch.bool)
    start[0] = True
    whole = net(obs, start, net.empty(3))
    memory = net.empty(3)
    for t in range(5):
        one = net(obs[t : t + 1], start[t : t + 1], memory)
        memory = one.memory
        torch.testing.assert_close(one.logits[0], whole.logits[t])
        torch.testing.assert_close(one.value[0], whole.value[t])
    torch.testing.assert_close(memory, whole.memory)


def test_a_start_forgets() -> None:
    net, obs = column(lstm=8), torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(1))
    start = torch.zeros(4, 2, dtype=torch.bool)
    start[2, 0] = True
    full = Memory(torch.ones(2, 8), torch.ones(2, 8))
    out = net(obs, start, full)
    fresh = net(obs[2:], torch.zeros(2, 2, dtype=torch.bool), net.empty(2))
    torch.testing.assert_close(out.logits[2:, 0], fresh.logits[:, 0])
    assert not torch.allclose(out.logits[2:, 1], fresh.logits[:, 1])


def test_without_a_memory_and_with_bytes() -> None:
    task = Task("grid", "gymnasium", ("L", "R"), (7, 7, 3))
    net = column(task, hidden=16, lstm=0)
    obs = torch.full((2, 3, 7, 7, 3), 255, dtype=torch.uint8)
    out = net(obs, torch.zeros(2, 3, dtype=torch.bool), net.empty(3))
    assert out.logits.shape == (2, 3, 2)
    assert out.memory.hidden.shape == (3, 0)
    torch.testing.assert_close(net.encoder(obs.flatten(0, 1) * (1 / 255)), net.encoder(torch.ones(6, 7, 7, 3)))
