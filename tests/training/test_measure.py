from itertools import count

import numpy as np
import pytest

from polydistill.envs.suite import make_env, resolve_task
from polydistill.training import measure


def test_an_emulators_speed_counts_every_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: 0.02 * next(ticks))
    env = make_env(resolve_task("catch"), 4)
    played: list[np.ndarray] = []
    step = env.step
    monkeypatch.setattr(env, "step", lambda actions: (played.append(actions), step(actions))[1])
    # 64 vector steps at least, although the second is over after 50 looks at the clock; the 65th look ends it
    assert measure.emulator_rate(env, seed=0, seconds=1.0) == pytest.approx(64 * 4 / 1.3)
    assert len(played) == 64
    assert set(np.concatenate(played)) == set(range(env.task.n_actions))
    env.close()
