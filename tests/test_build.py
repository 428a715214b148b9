import pytest

from polydistill.build import learning_rate
from polydistill.errors import UserError
from polydistill.recipe import LearnerSettings
from tests.distilling import parts_of, small


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.8, 0.8, 0.8, 0.8, 0.8]),
        ({"warmup_updates": 4}, [0.2, 0.6, 0.8, 0.8, 0.8]),
        ({"anneal": True}, [0.8, 0.64, 0.4, 0.0, 0.0]),
        ({"anneal": True, "warmup_updates": 4}, [0.2, 0.48, 0.4, 0.0, 0.0]),
    ],
)
def test_the_learning_rate_over_ten_updates(settings: dict[str, object], expected: list[float]) -> None:
    rate = learning_rate(LearnerSettings(learning_rate=0.8, **settings), total=10)
    assert [rate(updates) for updates in (0, 2, 5, 10, 11)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("memory", "copies", "small_one"),
    [({"capacity": 5}, 10, "memory.capacity"), ({"capacity": 10**6, "size": "400kB"}, 5_000, "--memory")],
)
def test_a_memory_too_small_for_one_step_says_which_setting_is(
    memory: dict[str, object], copies: int, small_one: str
) -> None:
    with pytest.raises(UserError, match=f"cannot hold one step of {copies} env.*: give a larger {small_one} or fewer"):
        parts_of(small(memory=memory, behaviour={"num_envs": copies}))
