"""Control steps per second of the doom suites, random actions, against bare ViZDoom."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.timing import Row, in_turns, row
from polydistill.envs.base import copy_seeds
from polydistill.envs.doom.actions import ACTIONS
from polydistill.envs.doom.game import Game
from polydistill.envs.doom.levels import REPEAT, SPECS, TICS
from polydistill.envs.suite import make_env, resolve_task

STEPS = 75  # vector steps of one measurement; seven of them are one episode
TASKS = ("mazes-5", "nav-4", "tag-2")


class Bare:
    """The same engines with the same levels, stepped in a plain loop: no reward, no observation but the screen."""

    def __init__(self, name: str, copies: int):
        spec = SPECS[name]
        self._presses = [press.values() for press in ACTIONS[spec.suite].values()]
        self._folder, self._bots, self._age = TemporaryDirectory(), spec.bots, 0
        self._games = []
        for i, seed in enumerate(copy_seeds(0, copies).tolist()):
            folder = Path(self._folder.name) / str(i)
            folder.mkdir()
            rng = np.random.default_rng(seed)  # as DoomVec draws: both play the same first episode
            game, plan = Game(spec, folder), spec.plan(rng)
            game.open(seed, plan)
            game.begin(int(rng.integers(2**31)), plan)
            self._games.append(game)

    def step(self, actions: list[int]) -> None:
        self._age += 1
        for game, action in zip(self._games, actions, strict=True):
            game.engine.make_action(self._presses[action], REPEAT)
            if self._bots and game.engine.is_player_dead():
                game.engine.respawn_player()
            game.engine.get_state().screen_buffer.copy()
            if self._age % (TICS // REPEAT) == 0:
                game.engine.new_episode()

    def close(self) -> None:
        for game in self._games:
            game.close()
        self._folder.cleanup()


def suite(name: str, copies: int, threads: int, repeats: int) -> Row:
    """One task of a suite; ``threads`` 0 means one per core, and bare ViZDoom always has one."""
    task = resolve_task(f"doom:{name}")
    choice = np.random.default_rng(0).integers(0, task.n_actions, (STEPS, copies))
    env, bare = make_env(task, copies, threads=threads), Bare(name, copies)
    env.reset(0)

    def ours() -> None:
        for actions in choice:
            env.step(actions)

    def reference() -> None:
        for actions in choice.tolist():
            bare.step(actions)

    a, b = in_turns(ours, reference, repeats)
    env.close()
    bare.close()
    n, label = STEPS * copies, "one thread" if threads == 1 else "a thread per core"
    return row(f"doom, random actions: {name}, {copies} copies, {label}", n / a, n / b, "control steps/s", ">= 0.80")


def doom(copies: int = 8, repeats: int = 14) -> list[Row]:
    """All rows of this file."""
    return [suite(name, copies, threads, repeats) for threads in (1, 0) for name in TASKS]


if __name__ == "__main__":
    for line in doom():
        print(f"{line['name']:60} {line['ours']:8.0f} {line['reference']:8.0f} {line['ratio']:.2f} {line['want']}")
