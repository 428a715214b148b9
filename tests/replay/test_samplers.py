"""What every sampler promises, run over whatever stands in the folder or is installed as an entry point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from polydistill import plugins
from polydistill.errors import UserError
from polydistill.replay import samplers
from polydistill.replay.samplers import Sampler
from polydistill.replay.samplers.hierarchical import Hierarchical

EVERY = samplers.names()


def random_sampler(name: str, seed: int, operations: int, capacity: int = 60) -> tuple[Sampler, set[int], list[int]]:
    """A sampler after random operations, the slots it should hold, and the free ones; checked all along."""
    rng = np.random.default_rng(seed)
    sampler = samplers.make(name, capacity, capacity + 8)
    held: set[int] = set()
    free = list(range(capacity + 8))
    for i in range(operations):
        kind = rng.random()
        if kind < 0.5:
            n = int(rng.integers(1, 9))
            slots, free = free[:n], free[n:]
            value = rng.normal(size=n) * rng.choice([0.1, 10])
            first = rng.random(n) if rng.random() < 0.5 else None
            gone = sampler.put(np.array(slots), value, first).tolist()
            held |= set(slots)
        elif kind < 0.6:
            gone = sampler.drop(int(rng.integers(0, 6))).tolist()
        else:
            gone = []
            if held:
                draw = sampler.draw(rng, 5)
                assert set(draw.slots.tolist()) <= held
                sampler.update(draw.slots, rng.choice([0.0, 1.0, rng.random()], 5))
        assert set(gone) <= held, "a slot left that was not there"
        assert len(set(gone)) == len(gone)
        held -= set(gone)
        free += gone
        assert len(sampler) == len(held) <= capacity
        if i % 20 == 0:
            sampler.check()
            assert set(sampler.filled().tolist()) == held
    while not held:
        sampler.put(np.array(free[:1]), np.zeros(1))
        held.add(free.pop(0))
    sampler.check()
    return sampler, held, free


@pytest.mark.parametrize("name", EVERY)
def test_random_operations(name: str) -> None:
    random_sampler(name, seed=0, operations=4_000)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", [1, 2])
def test_draws_follow_prob(name: str, seed: int) -> None:
    """Chi-square of 100,000 draws against ``prob``, and ``prob`` sums to 1 over the filled slots."""
    sampler, held, _ = random_sampler(name, seed, operations=300)
    draw = sampler.draw(np.random.default_rng(seed), 100_000)
    assert draw.slots.dtype == np.int64
    assert draw.prob.dtype == np.float64
    assert draw.slots.shape == draw.prob.shape == (100_000,)
    slots, at, count = np.unique(draw.slots, return_index=True, return_counts=True)
    prob = draw.prob[at]
    np.testing.assert_array_equal(prob[np.searchsorted(slots, draw.slots)], draw.prob)
    assert set(slots.tolist()) <= held
    missing = 1.0 - prob.sum()  # of slots too improbable to be drawn
    assert -1e-9 < missing < 1e-3
    if len(slots) == len(held):
        assert abs(missing) < 1e-9
    expected = prob * len(draw.slots)
    big = expected >= 5
    chi2, freedom = float(((count - expected)[big] ** 2 / expected[big]).sum()), int(big.sum()) - 1
    assert chi2 < freedom + 4.5 * math.sqrt(2 * max(freedom, 1)) + 8, (chi2, freedom)


@pytest.mark.parametrize("name", EVERY)
def test_resumed_draws_are_identical(name: str) -> None:
    sampler, held, free = random_sampler(name, seed=5, operations=300)
    other = samplers.make(name, 60, 68)
    state = sampler.state()
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "iufb" for array in state.values())
    other.load_state({key: array.copy() for key, array in state.items()})
    other.check()
    rngs = [np.random.default_rng(7), np.random.default_rng(7)]
    change = np.random.default_rng(8)
    for _ in range(50):
        draws = [s.draw(g, 16) for s, g in zip((sampler, other), rngs, strict=True)]
        np.testing.assert_array_equal(draws[0].slots, draws[1].slots)
        np.testing.assert_array_equal(draws[0].prob, draws[1].prob)
        priority, value = change.random(16), change.normal(size=2)
        gone = []
        for s in (sampler, other):
            s.update(draws[0].slots, priority)
            gone.append(s.put(np.array(free[:2]), value).tolist())
        assert gone[0] == gone[1]
        free = free[2:] + gone[0]
        held.clear()


@pytest.mark.parametrize("name", EVERY)
def test_another_state_is_refused(name: str) -> None:
    sampler, _, _ = random_sampler(name, seed=5, operations=20)
    with pytest.raises(UserError):
        samplers.make(name, 61, 69).load_state(sampler.state())
    with pytest.raises(UserError):
        samplers.make(name, 60, 68).load_state({})


@pytest.mark.parametrize("name", EVERY)
def test_empty(name: str) -> None:
    sampler = samplers.make(name, 10, 12)
    sampler.check()
    assert len(sampler) == len(sampler.filled()) == len(sampler.drop(3)) == 0
    with pytest.raises(UserError, match="empty"):
        sampler.draw(np.random.default_rng(0), 1)


@pytest.mark.parametrize("name", EVERY)
def test_is_a_sampler(name: str) -> None:
    assert isinstance(samplers.make(name, 10, 12), Sampler)


def arrays_of(part: object, seen: dict[int, object]) -> int:
    """Bytes of every array that an object of ours reaches, each memory counted once."""
    if isinstance(part, np.ndarray):
        while isinstance(part.base, np.ndarray):
            part = part.base
    if id(part) in seen:
        return 0
    seen[id(part)] = part
    if isinstance(part, np.ndarray):
        return part.nbytes
    if isinstance(part, list | tuple):
        return sum(arrays_of(each, seen) for each in part)
    ours = type(part).__module__.startswith("polydistill.replay")
    return sum(arrays_of(each, seen) for each in vars(part).values()) if ours else 0


SIZED: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in EVERY),
    ("hierarchical", {"value_range": (0, 1)}),
    ("hierarchical", {"value_range": (0, 1), "partitions": 10, "partition_counts": "window", "window": 3_000}),
    ("hierarchical", {"value_range": (0, 1), "eviction": "oldest"}),
    ("hierarchical", {"value_range": (0, 1), "out_of_range": "expand"}),
    ("hierarchical", {"partitions": 1}),
]


@pytest.mark.parametrize("name, settings", SIZED)
def test_its_size_is_known_before_it_is_made(name: str, settings: dict[str, Any]) -> None:
    """Equal to what a sampler says, full or empty, and within 3 % to all its arrays."""
    for capacity in (12, 999, 100_000):
        slots, rng = capacity + 16, np.random.default_rng(0)
        told = samplers.nbytes(name, capacity, slots, **settings)
        sampler = samplers.make(name, capacity, slots, **settings)
        assert told == sampler.nbytes
    for i in range(0, capacity, 200):
        sampler.put(np.arange(i, i + 200), rng.random(200), rng.random(200))
    draw = sampler.draw(rng, 32)
    sampler.update(draw.slots, rng.random(32))
    sampler.draw(rng, 32)
    assert told == sampler.nbytes
    sampler.telemetry() if isinstance(sampler, Hierarchical) else None  # what it notes is counted and forgotten
    assert 0.99 * told < arrays_of(sampler, {}) < 1.03 * told


def test_the_index_of_the_papers_ten_games() -> None:
    """Five partitions of 200,000 for each: typed in, to the percent."""
    hpr = samplers.nbytes("hierarchical", 1_000_000, 1_000_016, value_range=(0.0, 1.0))
    assert 10 * hpr == pytest.approx(390_000_000, rel=0.01)
    assert samplers.nbytes("proportional", 1_000_000, 1_000_016) == pytest.approx(12_100_000, rel=0.01)
    assert samplers.nbytes("uniform", 1_000_000, 1_000_016) == 5_000_080
    with pytest.raises(UserError, match="no setting 'partition'"):
        samplers.nbytes("hierarchical", 100, 116, partition=5)
    with pytest.raises(UserError, match="alpha"):
        samplers.nbytes("ranked", 100, 116, alpha=-1)


def test_a_sampler_that_tells_no_size_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ranked", "hierarchical"):
        told = samplers.nbytes(name, 500_000, 500_016)
        monkeypatch.delattr(f"polydistill.replay.samplers.{name}.nbytes")
        assert samplers.nbytes(name, 500_000, 500_016) == pytest.approx(told, rel=0.3)


def test_uniform_is_first_in_first_out() -> None:
    sampler = samplers.make("uniform", 3, 5)
    assert sampler.put(np.array([4, 0, 2]), np.zeros(3)).tolist() == []
    assert sampler.put(np.array([1, 3]), np.zeros(2)).tolist() == [4, 0]
    assert sampler.drop(1).tolist() == [2]
    assert sampler.filled().tolist() == [1, 3]
    with pytest.raises(UserError, match="free"):
        sampler.put(np.arange(4), np.zeros(4))


def test_names_and_typos() -> None:
    assert "uniform" in EVERY
    assert "base" not in EVERY
    with pytest.raises(UserError, match="did you mean 'uniform'"):
        samplers.make("unifrom", 10, 12)
    with pytest.raises(UserError, match="no setting 'alpha'"):
        samplers.make("uniform", 10, 12, alpha=1)
    with pytest.raises(UserError, match="--memory"):
        samplers.make("uniform", 0, 12)


def test_entry_points_add_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    point = EntryPoint("theirs", "polydistill.replay.samplers.uniform", samplers.GROUP)

    def found(**params: str) -> EntryPoints:
        return EntryPoints([point]).select(**params)

    monkeypatch.setattr(plugins, "entry_points", found)
    assert samplers.names() == sorted([*EVERY, "theirs"])
    assert samplers.make("theirs", 3, 5).capacity == 3
