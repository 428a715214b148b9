"""What a stand-alone user can hand a sampler: lists are read, everything else is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from polydistill.errors import UserError
from polydistill.replay import samplers, sizing
from polydistill.replay.samplers import Sampler

EVERY = samplers.names()
Refused = Callable[[Sampler], object]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def half_full(name: str, **settings: Any) -> Sampler:
    """Slots 0 to 9 of 28, capacity 20."""
    sampler = samplers.make(name, 20, 28, **settings)
    sampler.put(np.arange(10), np.linspace(0, 1, 10), np.linspace(0.1, 1, 10))
    return sampler


def same(before: dict[str, np.ndarray], sampler: Sampler) -> bool:
    after = sampler.state()
    return before.keys() == after.keys() and all(np.array_equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("name", EVERY)
def test_lists_and_other_dtypes_do_what_arrays_do(name: str) -> None:
    one, two = half_full(name), half_full(name)
    slots, value, priority = np.array([12, 11, 27]), np.array([0.25, 0.75, 1.0]), np.array([0.5, 2.0, 0.0])
    one.put(slots, value, priority)
    two.put([12, 11, 27], [0.25, 0.75, 1], [0.5, 2, 0])  # type: ignore[arg-type]
    one.update(slots[:2], priority[:2])
    two.update(torch.tensor([12, 11], dtype=torch.int32), torch.tensor([0.5, 2.0]))  # type: ignore[arg-type]
    one.put(np.zeros(0, np.int64), np.zeros(0))
    two.put([], [])  # type: ignore[arg-type]
    two.update([], [])  # type: ignore[arg-type]
    assert same(one.state(), two)
    assert len(one.draw(rng(), 0).slots) == len(one.drop(0)) == 0
    a, b = one.draw(rng(), 50), two.draw(rng(), np.int64(50))  # type: ignore[arg-type]
    np.testing.assert_array_equal(a.slots, b.slots)
    two.check()


SLOTS, ZEROS = np.array([11, 12]), np.zeros(2)
REFUSED: dict[str, tuple[Refused, str]] = {
    "slots with halves": (lambda s: s.put(np.array([11.5, 12]), ZEROS), "slots are whole numbers.*float64"),
    "slots in a column": (lambda s: s.put(SLOTS[:, None], ZEROS), r"slots are whole numbers.*\[2, 1\]"),
    "a slot alone": (lambda s: s.put(11, 0.0), r"slots are whole numbers.*\[\]"),  # type: ignore[arg-type]
    "slots in words": (lambda s: s.put(["a", "b"], ZEROS), "slots are whole numbers"),  # type: ignore[arg-type]
    "no slots": (lambda s: s.put(None, ZEROS), "slots are whole numbers"),  # type: ignore[arg-type]
    "ragged slots": (lambda s: s.put([[1], [2, 3]], ZEROS), "slots cannot be read"),  # type: ignore[arg-type]
    "slots that come twice": (lambda s: s.put([11, 11], ZEROS), "comes twice"),  # type: ignore[arg-type]
    "more slots than free": (lambda s: s.put(np.arange(9, 28), np.zeros(19)), "19 slots put where 18 are free"),
    "a value too few": (lambda s: s.put(SLOTS, ZEROS[:1]), "1 values for 2 experiences"),
    "values in a column": (lambda s: s.put(SLOTS, ZEROS[:, None]), r"values of shape \[2, 1\] for 2 experiences"),
    "values in words": (lambda s: s.put(SLOTS, ["a", "b"]), "values are numbers"),  # type: ignore[arg-type]
    "no values": (lambda s: s.put(SLOTS, None), r"values of shape \[\]"),  # type: ignore[arg-type]
    "a value that is NaN": (lambda s: s.put(SLOTS, np.array([0, np.nan])), "value of a state is NaN or infinite"),
    "a value that is infinite": (lambda s: s.put(SLOTS, np.array([-np.inf, 0])), "value of a state is NaN or infin"),
    "first priorities in a column": (
        lambda s: s.put(SLOTS, ZEROS, np.ones((2, 1))),
        r"priorities of shape \[2, 1\] for 2 experiences",
    ),
    "priorities in a column": (lambda s: s.update(np.array([3, 4]), np.ones((2, 1))), r"shape \[2, 1\] for 2 exp"),
    "one priority for all": (lambda s: s.update(np.array([3, 4]), 1.0), r"priorities of shape \[\]"),  # type: ignore[arg-type]
    "complex priorities": (lambda s: s.update(np.array([3]), np.array([1j])), "priorities are numbers, not complex"),
    "a priority with a gradient": (
        lambda s: s.update(np.array([3]), torch.ones(1, requires_grad=True)),  # type: ignore[arg-type]
        "priorities cannot be read",
    ),
    "to draw fewer than none": (lambda s: s.draw(rng(), -1), "a number of experiences is 0 or more, not -1"),
    "to draw a half": (lambda s: s.draw(rng(), 2.5), "is a whole number, not 2.5"),  # type: ignore[arg-type]
    "to drop fewer than none": (lambda s: s.drop(-3), "a number of experiences is 0 or more, not -3"),
    "to drop a word": (lambda s: s.drop("all"), "is a whole number, not 'all'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("what", REFUSED)
def test_anything_else_is_refused_and_nothing_is_changed(name: str, what: str) -> None:
    sampler, (call, said) = half_full(name), REFUSED[what]
    before = sampler.state()
    with pytest.raises(UserError, match=said) as refused:
        call(sampler)
    assert "\n" not in str(refused.value)
    assert same(before, sampler)
    sampler.check()


def test_losses_of_no_slot_are_refused() -> None:
    sampler: Any = half_full("hierarchical")
    for slots, losses, said in (
        ([28], [1.0], "slots are 0 to 27"),
        ([-1], [1.0], "0 to 27"),
        ([1, 2], [1.0], "1 losses"),
    ):
        with pytest.raises(UserError, match=said):
            sampler.note_loss(slots, losses)
    sampler.note_loss([3, 20], [1.0, 5.0])  # 20 is not stored
    np.testing.assert_array_equal(sampler.telemetry()["loss_share"], [0, 1, 0, 0, 0])


# ---------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "capacity", "settings"),
    [
        ("uniform", 10**13, {}),
        ("proportional", 10**13, {}),
        ("ranked", 10**13, {}),
        ("hierarchical", 10**13, {}),
        ("hierarchical", 10**13, {"eviction": "oldest", "value_range": (0, 1)}),
        ("hierarchical", 100, {"partition_counts": "window", "window": 10**14}),
        ("hierarchical", 10**15, {"partitions": 10**14}),
        ("uniform", 10**30, {}),
    ],
)
def test_what_no_machine_holds_is_refused_before_it_is_made(name: str, capacity: int, settings: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=rf"^the arrays of sampler '{name}' .* need \d+ TB, but this machine has"
    ) as told:
        samplers.make(name, capacity, capacity + 8, **settings)
    assert f"capacity {capacity:,}" in str(told.value)
    assert all(str(value) in str(told.value) for value in settings.values())


def test_what_this_machine_holds_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    need = samplers.nbytes("ranked", 5_000, 5_008)
    for free, fits in ((need, True), (need - 1, False)):
        monkeypatch.setattr(sizing, "machine_memory", lambda free=free: (10**12, free))
        if fits:
            assert samplers.make("ranked", 5_000, 5_008).nbytes == need
        else:
            with pytest.raises(UserError, match=r"need 241 kB, but this machine has 241 kB free of 1\.0 TB"):
                samplers.make("ranked", 5_000, 5_008)


@pytest.mark.parametrize("name", EVERY)
def test_indices_of_32_bits_are_not_exceeded_where_memory_abounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "machine_memory", lambda: (10**15, 10**15))
    with pytest.raises(UserError, match="31 bits"):
        samplers.make(name, 2**31, 2**31)


@pytest.mark.parametrize("name", ["ranked", "hierarchical"])
def test_neither_are_the_places_of_the_keys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "machine_memory", lambda: (10**15, 10**15))
    settings = {"partitions": 1} if name == "hierarchical" else {}
    monkeypatch.setattr(np, "zeros", lambda *x: np.empty(0))  # of 2 * 10^9, if it comes to that
    monkeypatch.setattr("polydistill.replay.ranked_queues.rank_law", lambda *x: None)
    with pytest.raises(UserError, match="31 bits"):
        samplers.make(name, 2 * 10**9, 2 * 10**9, **settings)


def test_a_machine_that_breaks_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*x: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("polydistill.replay.samplers.ranked.Ranked", none_left)
    with pytest.raises(UserError, match=r"^the arrays of sampler 'ranked' \(capacity 100\) found no memory"):
        samplers.make("ranked", 100, 108)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("key", ["capacity", "slots"])
def test_what_the_memory_gives_is_no_setting(name: str, key: str) -> None:
    for call in (samplers.make, samplers.nbytes):
        with pytest.raises(UserError, match=rf"^sampler '{name}' has no setting '{key}': .*memory\.capacity"):
            call(name, 10, 12, **{key: 3})


@pytest.mark.parametrize(
    ("capacity", "slots", "said"),
    [
        (1.5, 9, "a whole number, not 1.5"),
        ("9", 9, "a whole number"),
        (9, None, "slots is a whole"),
        (9, 8, "8 slots do"),
    ],
)
def test_capacities_are_whole_numbers(capacity: Any, slots: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        samplers.make("ranked", capacity, slots)


# --------------------------------------------------------------------------------------------------------- saved states

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("uniform", {}),
    ("proportional", {}),
    ("ranked", {"staleness": 0.9}),
    ("hierarchical", {"staleness": 0.9}),  # the range grows
    ("hierarchical", {"staleness": 0.9, "value_range": (0, 1), "eviction": "oldest"}),
    ("hierarchical", {"value_range": (0, 1), "partition_counts": "window", "window": 7}),
]

DAMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "-1": lambda x: np.full_like(x, -1),
    "5": lambda x: np.full_like(x, 5),
    "27": lambda x: np.full_like(x, 27),
    "1e6": lambda x: np.full_like(x, 1_000_000),
    "NaN": lambda x: np.full_like(x, np.nan) if x.dtype.kind == "f" else np.full_like(x, 2**31 - 1),
    "reversed": lambda x: x[..., ::-1].copy() if x.ndim else x + 1,
    "the first one": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, x + 17, x).astype(x.dtype),
    "the last one": lambda x: np.where(np.arange(x.size).reshape(x.shape) == x.size - 1, x - 9, x).astype(x.dtype),
    "another shape": lambda x: x.reshape(-1)[:1].repeat(2),
}


def used(name: str, settings: dict[str, Any], seed: int) -> Sampler:
    """After 40 puts, draws and updates; some of its draws are still to be handed out."""
    sampler, random, free = samplers.make(name, 200, 208, **settings), np.random.default_rng(seed), list(range(208))
    for _ in range(40):
        slots, free = np.array(free[:8]), free[8:]
        free += sampler.put(slots, random.random(8), random.random(8)).tolist()
        sampler.update(sampler.draw(random, 4).slots, random.random(4))
    return sampler


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_damaged_state_is_refused_whole_or_harmless(name: str, settings: dict[str, Any]) -> None:
    """Every array, damaged in every way: what is refused changes nothing, what is loaded holds all invariants."""
    good, refused = used(name, settings, 1).state(), set()
    if settings.get("staleness"):
        assert good[next(key for key in good if key.endswith("ahead_slots"))].size
    sampler = used(name, settings, 2)
    mine = sampler.state()
    for key in good:
        for what, damage in DAMAGES.items():
            state = {k: v.copy() for k, v in good.items()}
            with np.errstate(invalid="ignore"):
                state[key] = damage(state[key])
            try:
                sampler.load_state(state)
            except UserError:
                assert same(mine, sampler), f"{key}: {what} was half loaded"
                refused.add((key.rsplit(".", 1)[-1], what))
            else:
                sampler.check()
                draw = sampler.draw(rng(), 4)
                assert np.isfinite(draw.prob).all()
                sampler.update(draw.slots, np.ones(4))
                sampler.load_state(mine)
    sampler.load_state(good)
    assert same(good, sampler)
    for key, what in (("ahead_slots", "1e6"), ("ahead_slots", "-1"), ("ahead_prob", "NaN"), ("ahead_queue", "5")):
        assert (key, what) in refused or not settings.get("staleness")
    for key in ("ring", "largest", "priority", "mass", "value", "count"):
        assert (key, "NaN") in refused or not any(k.rsplit(".", 1)[-1] == key and v.size for k, v in good.items()), key


def test_a_state_names_what_is_damaged() -> None:
    sampler = used("ranked", {"staleness": 0.9}, 1)
    fresh = samplers.make("ranked", 200, 208, staleness=0.9)
    for key, value, said in (("largest", np.nan, "its largest priority is nan"), ("ahead_slots", 10**6, "drew ahead")):
        state = sampler.state()
        state[key][...] = value
        with pytest.raises(UserError, match=f"^sampler ranked: the saved state is damaged .*{said}"):
            fresh.load_state(state)
        assert len(fresh) == 0
