"""Multi-task DQN: one network learns several games from rewards, the baseline of two papers.

Rusu et al. 2016, section 3.3 ("Multi-DQN"): one controller per game (``nets/controllers.py``). Parisotto et al. 2016,
App. C: one shared output for all games, invalid actions ignored ("MDQN", ``nets/mimic.py``), or all but the
convolutions apart ("MCDQN", ``nets/task_heads.py``). The loss is single-task DQN's; each game has its own memory.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from polydistill.algorithms.dqn import DQNSettings, Player, dqn_loss, make_optimizer
from polydistill.envs.base import VecEnv
from polydistill.nets.student import Student
from polydistill.ops.policy import max_value
from polydistill.optim import flatten_optimizer, restore_optimizer
from polydistill.rng import stream, torch_seed

#: ``lockstep``: all games play, and one update learns from all of them (Parisotto et al., the authors' code).
#: ``episode``: one game plays until an episode of it ends, then the game that has played least; updates take the games
#: in turn ("the game is switched every episode ... and training is evenly interleaved", Rusu et al.).
Switch = Literal["lockstep", "episode"]


@dataclass(frozen=True)
class Update:
    """One optimiser step. Tensors are detached, on the learner's device.

    Attributes:
        tasks: Rows of the suite that were learnt from.
        loss: ``[len(tasks)]``, mean clipped loss.
        q_mean: ``[len(tasks)]``, mean of the best valid action's value.
    """

    tasks: Sequence[int]
    loss: Tensor
    q_mean: Tensor


class MultiDQN:
    """One network, several games; iterate :meth:`run`.

    A period of the settings (``update_period``, ``target_period``) counts control steps of one game in lock-step, and
    of whichever game plays when games switch: either way an update belongs to as many steps of every game it sees.
    Epsilon counts each game's own steps; updates begin when every game has its ``learning_starts``.

    Attributes:
        task_steps: Control steps of each game, without those that filled its memory again after a cut ...
        refilled: ... which are counted here, all games together.
        owed: Updates that the control steps so far are still to be learnt from with.
        over: Whether the last control step ended an episode, so that the turn goes on.

    Args:
        envs: One per task of the student's suite, with the same number of copies.
        student: Its outputs are read as Q-values, those of valid actions alone.
        settings: ``minibatch`` is per game.
        seed: Root of all randomness.
        budget_bytes: Of each memory, at most.
    """

    def __init__(
        self,
        envs: Sequence[VecEnv],
        student: Student,
        settings: DQNSettings,
        switch: Switch = "lockstep",
        seed: int = 0,
        device: torch.device | str = "cpu",
        budget_bytes: int | None = None,
    ):
        self.student, self.suite, self.s, self.switch = student, student.suite, settings, switch
        self.seed, self.device = seed, torch.device(device)
        self.players = [Player(env, settings, budget_bytes) for env in envs]
        self.target = copy.deepcopy(student).requires_grad_(False)
        at_once = len(envs) if switch == "lockstep" else 1
        self.optimizer = make_optimizer(student.parameters(), settings, settings.minibatch * at_once)
        self.valid = torch.tensor(self.suite.valid, device=self.device)[:, None]  # [G, 1, A]
        self.task_steps, self.task_updates = [0] * len(envs), [0] * len(envs)
        self.clock = self.updates = self.turn = self.refilled = 0
        self.owed, self.over = 0.0, False
        self.finished: list[deque[float]] = [deque(maxlen=100) for _ in envs]  # returns of each game's last episodes

    @property
    def control_steps(self) -> int:
        """Control steps of all games together."""
        return sum(self.task_steps)

    def epsilon(self, task: int) -> float:
        """Exploration in a game."""
        return self.s.epsilon(self.task_steps[task])

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Target network, optimiser, counters. The memories are filled again on resume."""
        tensors = {"target": self.target.state_dict(), "optimizer": flatten_optimizer(self.optimizer)}
        names = ("clock", "updates", "turn", "refilled", "owed", "over")
        counts = {"task_steps": list(self.task_steps), "task_updates": list(self.task_updates)}
        return tensors, {name: getattr(self, name) for name in names} | counts

    def load_state(self, tensors: dict[str, dict[str, Tensor]], counters: dict[str, Any]) -> None:
        """Undo :meth:`state`. The student is the caller's."""
        self.target.load_state_dict(tensors["target"])
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        self.clock, self.updates, self.turn = counters["clock"], counters["updates"], counters["turn"]
        self.task_steps, self.task_updates = list(counters["task_steps"]), list(counters["task_updates"])
        self.refilled = counters.get("refilled", 0)  # these three are not in older checkpoints
        self.owed, self.over = counters.get("owed", 0.0), counters.get("over", False)

    def run(self, stopping: Callable[[], bool] = lambda: False) -> Iterator[Update]:
        """Endless: yields every update. ``stopping`` ends it between two control steps.

        Going on after :meth:`load_state`, games begin new episodes and first fill their memories again with what they
        had played, ``learning_starts`` steps at most. Those count for nothing.
        """
        s, copies = self.s, self.players[0].env.num_envs
        rng = stream(self.seed, "replay", self.clock)
        generator = torch.Generator(self.device).manual_seed(torch_seed(self.seed, "behaviour", self.clock))
        for player in self.players:
            player.reset(self.seed + self.clock % 100_003)
        missing, everyone = [s.refill(steps) for steps in self.task_steps], list(range(len(self.players)))
        while tasks := [g for g in everyone if missing[g] > 0]:
            if stopping():
                return
            for g in tasks:
                self._play([g], generator, counted=False)
                missing[g] -= copies
        while True:
            while self.owed >= 1:
                self.owed -= 1
                yield self._learn(self._taught(), rng)
            if self.clock and s.target_due("control_steps", self.clock - copies, self.clock):
                self._copy()
            if self.over:
                self.turn, self.over = self._next(), False
            if stopping():
                return
            self.over = self._play(everyone if self.switch == "lockstep" else [self.turn], generator)
            self.clock += copies
            if min(self.task_steps) >= s.learning_starts:
                self.owed += copies / s.update_period

    def _taught(self) -> list[int]:
        """The games that the next update learns from: all, or each in turn."""
        games = len(self.players)
        return list(range(games)) if self.switch == "lockstep" else [self.updates % games]

    def _next(self) -> int:
        """The game that has played least; of several the first after the one that played last."""
        games = len(self.players)
        return min(((self.turn + i) % games for i in range(1, games + 1)), key=self.task_steps.__getitem__)

    def _play(self, tasks: Sequence[int], generator: torch.Generator, counted: bool = True) -> bool:
        """One control step in every copy of ``tasks``; whether an episode ended."""
        obs = [self._tensor(self.players[g].obs) for g in tasks]
        with torch.inference_mode():
            q = self._values(self.student, obs, tasks)
        ended = False
        for g, row in zip(tasks, q, strict=True):
            player = self.players[g]
            returns = player.step(player.choose(row[:, list(self.suite.actions[g])], self.epsilon(g), generator))
            if counted:
                self.task_steps[g] += player.env.num_envs
            else:
                self.refilled += player.env.num_envs
            self.finished[g].extend(returns)
            ended = ended or bool(returns)
        return ended

    def _learn(self, tasks: Sequence[int], rng: np.random.Generator) -> Update:
        """One update from a minibatch of each of ``tasks``: a rectangle ``[len(tasks), B]``."""
        batches = [self.players[g].memory.sample(rng, self.s.minibatch)[1] for g in tasks]
        after = [self._tensor(b.next_obs) for b in batches]
        valid = self.valid[list(tasks)]
        with torch.no_grad():
            q_next = self._values(self.target, after, tasks)
            online = self._values(self.student, after, tasks) if self.s.double else None
        q = self._values(self.student, [self._tensor(b.obs) for b in batches], tasks)
        action, reward, terminated, discount = (
            self._tensor(np.stack(column))
            for column in (
                [self.suite.to_axis(g, b.action) for g, b in zip(tasks, batches, strict=True)],
                [b.reward for b in batches],
                [b.terminated for b in batches],
                [b.discount for b in batches],
            )
        )
        per_example = dqn_loss(q, action, reward, terminated, q_next, online, discount, valid)
        self.optimizer.zero_grad(set_to_none=True)
        per_example.mean().backward()
        self.optimizer.step()
        self.updates += 1
        for g in tasks:
            self.task_updates[g] += 1
        if self.s.target_due("updates", self.updates - 1, self.updates):
            self._copy()
        return Update(tasks, per_example.detach().mean(-1), max_value(q.detach(), valid).mean(-1))

    def _values(self, net: Student, obs: Sequence[Tensor], tasks: Sequence[int]) -> Tensor:
        """``len(tasks)`` tensors ``[N, *obs_shape]`` -> ``[len(tasks), N, A]``."""
        if len(tasks) == len(self.suite):
            out: Tensor = net(obs).logits
            return out
        return torch.stack([net.act(o, g) for o, g in zip(obs, tasks, strict=True)])

    def _copy(self) -> None:
        self.target.load_state_dict(self.student.state_dict())

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
