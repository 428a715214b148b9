"""Scripted play in the real engine: what pays what, doors, tags; and what a run promises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from polydistill.envs.doom import actors
from polydistill.envs.doom.actions import ACTIONS
from polydistill.envs.doom.game import Game
from polydistill.envs.doom.levels import Plan, Spec
from polydistill.envs.doom.udmf import Level, Sector, Thing, centre
from polydistill.envs.doom.vec import DoomVec
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError

START, END = (1, 1), (1, 10)  # cells at the ends of the corridor
FORWARD, BACKWARD = (list(ACTIONS["mazes"]).index(name) for name in ("FORWARD", "BACKWARD"))


def corridor(*things: Thing, door: int | None = None, points: int | None = None) -> Plan:
    """Ten cells from west to east; the player stands in the first one and looks east."""
    sectors = np.full((3, 12), -1)
    sectors[1, 1:11] = 0
    if door is not None:
        sectors[1, door] = 1
    level = Level(sectors, (Sector(), Sector(tag=10)), ("STARTAN3",), "BIGDOOR2", (Thing(1, START), *things))
    return Plan(level, (START,), points)


@contextmanager
def playing(plan: Plan, tmp_path: Path, suite: str = "mazes", bots: int = 0) -> Iterator[Game]:
    game = Game(Spec(suite, lambda rng: plan, bots), tmp_path)
    game.open(1, plan)
    game.begin(1, plan)
    try:
        yield game
    finally:
        game.close()


def walk(game: Game, action: int, steps: int) -> list[float]:
    """The rewards that are not 0."""
    return [reward for reward, _ in (game.play(action) for _ in range(steps)) if reward]


def test_an_apple_pays_once(tmp_path: Path) -> None:
    plan = corridor(Thing(actors.APPLE, (1, 3)), Thing(actors.APPLE, (1, 5)), points=2)
    with playing(plan, tmp_path) as game:
        assert game.position() == pytest.approx((*centre(START), 0))
        assert walk(game, FORWARD, 10) == [1]
        assert not game.done()
        assert walk(game, FORWARD, 20) == [1]
        assert game.position()[0] > centre((1, 9))[0]  # it ran, and the wall stopped it
        assert game.done()
        assert walk(game, BACKWARD, 40) == []
        game.begin(2, plan)  # the next episode has its apples again
        assert not game.done()
        assert walk(game, FORWARD, 30) == [1, 1]


def test_a_goal_pays_moves_the_player_on_and_comes_back(tmp_path: Path) -> None:
    destinations = [Thing(actors.TELEPORT_DESTINATION, cell, 0, actors.STARTS_TID) for cell in (START, (1, 2))]
    with playing(corridor(Thing(actors.GOAL, (1, 6)), *destinations), tmp_path) as game:
        places = []
        for _ in range(6):
            for _ in range(60):
                reward, lost = game.play(FORWARD)
                if reward:
                    break
            assert (reward, lost) == (10, False)
            game.play(FORWARD)  # it has moved by now, and kept its speed: at most 68 map units a step
            places.append(game.position()[0])
        assert max(places) < centre((1, 4))[0]
        assert max(places) - min(places) > 100  # both destinations are drawn, 128 units apart


def test_parcels_pay_when_brought_back(tmp_path: Path) -> None:
    plan = corridor(
        Thing(actors.BASE, START), Thing(actors.PARCEL, (1, 3)), Thing(actors.PARCEL, (1, 4)), points=2 * (1 + 5)
    )
    with playing(plan, tmp_path, "nav") as game:
        assert walk(game, FORWARD, 16) == [1, 1]
        assert not game.done()
        assert sum(walk(game, BACKWARD, 30)) == 10
        assert game.done()
        assert walk(game, FORWARD, 10) + walk(game, BACKWARD, 20) == []


def test_a_door_opens_and_closes(tmp_path: Path) -> None:
    with playing(corridor(Thing(actors.DOOR_KEEPER, (1, 4), args=(10,)), door=4), tmp_path, "nav") as game:
        passed = set()
        for seed in range(8):
            game.begin(seed, game.plan)  # type: ignore[arg-type]
            for _ in range(16):
                game.play(BACKWARD)  # a door needs three seconds to close
            walk(game, FORWARD, 24)
            passed.add(game.position()[0] > centre((1, 5))[0])
        assert passed == {True, False}


def test_tag(tmp_path: Path) -> None:
    things = [Thing(actors.DEATHMATCH_START, cell, angle) for cell, angle in ((START, 0), (END, 180))]
    plan = corridor(*things, Thing(actors.BADGE, (1, 5)))
    plan = Plan(plan.level, (START, END))
    shoot, forward = (list(ACTIONS["tag"]).index(name) for name in ("SHOOT", "FORWARD"))
    with playing(plan, tmp_path, "tag", bots=1) as game:
        played = [game.play(shoot if t % 8 else forward) for t in range(300)]
        rewards = {reward for reward, _ in played}
        assert actors.TAG_POINTS in rewards
        assert rewards <= {0, 0.25, 1, 1.25, 2}
        assert any(lost for _, lost in played)
    with playing(plan, tmp_path, "tag", bots=1) as game:
        assert [game.play(shoot if t % 8 else forward) for t in range(300)] == played
    # Nobody else there: the badge alone.
    with playing(plan, tmp_path, "tag") as game:
        game._pays = ((game._viz.GameVariable.ITEMCOUNT, actors.BADGE_POINTS),)
        game.begin(1, plan)
        assert walk(game, forward, 20) == [0.25]


@pytest.mark.parametrize("name", ["doom:mazes-2", "doom:nav-4", "doom:tag-1"])
def test_episodes_follow_from_the_seed(name: str) -> None:
    def play(threads: int, before: int) -> tuple[np.ndarray, np.ndarray]:
        env = DoomVec(resolve_task(name), 2, threads=threads, max_frames=60)
        for seed in range(before):  # whatever was played before
            env.reset(seed)
            env.step(np.array([0, 1]))
        obs = env.reset(9)
        rng = np.random.default_rng(0)
        steps = [env.step(rng.integers(0, env.task.n_actions, 2)) for _ in range(35)]
        env.close()
        assert [t for t, step in enumerate(steps) if step.truncated.all()] == [14, 29]
        longer = DoomVec(resolve_task(name), 2, threads=threads)
        longer.reset(9)
        rng = np.random.default_rng(0)
        *_, last = (longer.step(rng.integers(0, longer.task.n_actions, 2)) for _ in range(15))
        longer.close()
        assert steps[14].final_obs is not None
        assert np.array_equal(last.obs, steps[14].final_obs)  # what the limit cut off
        return np.stack([obs, *(s.obs for s in steps)]), np.stack([s.reward for s in steps])

    first, again = play(1, 0), play(2, 1)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0][0], first[0][15])  # the next episode starts elsewhere


def test_nothing_is_left_behind_and_ctrl_c_reaches_the_program(tmp_path: Path) -> None:
    code = """
import os, signal
import numpy as np
from polydistill.envs.suite import make_env, resolve_task
heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: heard.append(1))
env = make_env(resolve_task("doom:mazes-1"), 2)
env.reset(0)
os.killpg(0, signal.SIGINT)  # as a terminal does
env.step(np.zeros(2, int))
os.kill(os.getpid(), signal.SIGTERM)
steps = [env.step(np.zeros(2, int)) for _ in range(20)]
folder = env._folder.name
env.close()
print(heard, len(steps), os.path.exists(folder), os.listdir())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, start_new_session=True, timeout=60
    )
    assert done.stdout.strip() == "[1, 1] 20 False []", done.stderr


def test_bad_names_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean 'doom:mazes-1'"):
        resolve_task("doom:maze-1")
    with pytest.raises(UserError, match="there are doom:mazes-1 to -8"):
        resolve_task("doom")
    task = resolve_task("doom:tag-8")
    with pytest.raises(UserError, match="no sticky actions"):
        make_env(task, 1, sticky=0.25)
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    for ask in (lambda: resolve_task("doom:mazes-1"), lambda: make_env(task, 1)):
        with pytest.raises(UserError, match=r"pip install 'polydistill\[doom\]'"):
            ask()


def test_one_action_set_per_suite() -> None:
    for suite, numbers in (("mazes", 8), ("nav", 4), ("tag", 8)):
        tasks = [resolve_task(f"doom:{suite}-{n}") for n in range(1, numbers + 1)]
        assert len({task.action_meanings for task in tasks}) == 1
        assert {task.obs_shape for task in tasks} == {(3, 84, 84)}
