import pytest

from polydistill.build import learning_rate
from polydistill.recipe import LearnerSettings


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
