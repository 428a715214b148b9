"""``num_envs`` copies of a doom task, each in an engine of its own, stepped by a few threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from polydistill.envs.base import MAX_FRAMES, SendReceive, Step, at_least_one, copy_seeds, own_actions
from polydistill.envs.doom.game import Game, shrink, vizdoom
from polydistill.envs.doom.levels import REPEAT, SPECS, TICS
from polydistill.tasks import Task


class _Copy:
    """One copy: its engine, and the generator that draws its episodes."""

    def __init__(self, task: Task, folder: Path):
        folder.mkdir()
        self._spec = SPECS[task.name.removeprefix("doom:")]
        self.game = Game(self._spec, folder)
        self._rng = np.random.default_rng(0)
        self._steps = 0

    def reset(self, seed: int, out: np.ndarray) -> None:
        """An episode from ``seed`` alone; its first observation goes to ``out``."""
        self._rng = np.random.default_rng(seed)
        self.game.open(seed, self._spec.plan(np.random.default_rng(seed)))
        self._begin(out)

    def _begin(self, out: np.ndarray) -> None:
        self._steps = 0
        plan = self._spec.plan(self._rng)
        self.game.begin(int(self._rng.integers(2**31)), plan)
        shrink(self.game.screen(), out)

    def step(self, i: int, action: int, limit: int, out: Step, final: np.ndarray) -> None:
        """Play one control step and write what came of it into row ``i``; ``final`` is written where an episode ends.

        Args:
            limit: Control steps until truncation.
        """
        reward, lost = self.game.play(action)
        self._steps += 1
        terminated = self.game.done()
        out.reward[i], out.life_lost[i], out.terminated[i] = reward, lost, terminated
        if terminated or self._steps >= limit:
            out.truncated[i] = not terminated
            shrink(self.game.screen(), final[i])
            self._begin(out.obs[i])
        else:
            shrink(self.game.screen(), out.obs[i])


class _Caller:
    """A pool without threads: what is submitted is done at once."""

    def submit(self, work: Callable[[range], None], share: range) -> Future[None]:
        done: Future[None] = Future()
        try:
            work(share)
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self) -> None:
        pass


class DoomVec(SendReceive):
    """``num_envs`` copies of one doom task; see :class:`~polydistill.envs.base.VecEnv`.

    An observation is uint8 ``[3, 84, 84]``, RGB. A control step is 4 engine tics, of which the last is seen; an episode
    is truncated after 2,100 tics (525 control steps, one minute). Copies share nothing: an engine is a process, and
    ``threads`` threads wait for them, which costs no time of the interpreter.

    Args:
        task: From :func:`polydistill.envs.doom.resolve`.
        num_envs: Number of copies, ``N``. Opening one takes about 0.15 s of a core.
        threads: Threads that step the copies; 0 for one per core. A single one is the caller's own: the copies then
            play in ``send``.
        max_frames: Engine tics after which an episode is truncated, if fewer than 2,100.

    Raises:
        UserError: ViZDoom is missing, or there would be no copy.
    """

    def __init__(self, task: Task, num_envs: int, *, threads: int = 0, max_frames: int = MAX_FRAMES):
        vizdoom()
        self.task, self.num_envs = task, at_least_one(num_envs)
        self._limit = -(-min(TICS, max_frames) // REPEAT)
        self._folder = TemporaryDirectory(prefix="polydistill-doom-")
        self._copies = [_Copy(task, Path(self._folder.name) / str(i)) for i in range(num_envs)]
        workers = min(num_envs, threads or len(os.sched_getaffinity(0)))
        alone = workers == 1 and (threads == 1 or len(os.sched_getaffinity(0)) == 1)
        self._pool = _Caller() if alone else ThreadPoolExecutor(workers, thread_name_prefix="doom")
        self._shares = [range(k, num_envs, workers) for k in range(workers)]
        self._begun: tuple[Step, np.ndarray, list[Future[None]]] | None = None

    def reset(self, seed: int) -> np.ndarray:
        seeds = copy_seeds(seed, self.num_envs).tolist()
        obs = np.zeros((self.num_envs, *self.task.obs_shape), dtype=np.uint8)
        _wait(self._share_out(lambda i: self._copies[i].reset(seeds[i], obs[i])))
        return obs

    def _share_out(self, work: Callable[[int], None]) -> list[Future[None]]:
        """Begin ``work(i)`` for every copy."""

        def do(share: range) -> None:
            for i in share:
                work(i)

        return [self._pool.submit(do, share) for share in self._shares]

    def send(self, actions: np.ndarray) -> None:
        chosen = own_actions(actions, self.task, self.num_envs).tolist()
        n = self.num_envs
        obs, final = np.empty((2, n, *self.task.obs_shape), dtype=np.uint8)
        flags = np.zeros((3, n), dtype=np.bool_)
        step = Step(obs, np.zeros(n, dtype=np.float32), flags[0], flags[1], None, flags[2])
        begun = self._share_out(lambda i: self._copies[i].step(i, chosen[i], self._limit, step, final))
        self._begun = step, final, begun

    def receive(self) -> Step:
        assert self._begun is not None, "receive without send"
        step, final, begun = self._begun
        self._begun = None
        _wait(begun)
        ended = step.ended
        if not ended.any():
            return step
        final[~ended] = 0
        return Step(step.obs, step.reward, step.terminated, step.truncated, final, step.life_lost)

    def close(self) -> None:
        self._pool.shutdown()
        for copy in self._copies:
            copy.game.close()
        self._folder.cleanup()


def _wait(begun: list[Future[None]]) -> None:
    """Wait for all, then raise what one of them raised."""
    errors = [future.exception() for future in begun]
    for error in errors:
        if error is not None:
            raise error
