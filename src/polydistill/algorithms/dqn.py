"""The Nature DQN (Mnih et al. 2015), after the authors' code where code and article disagree: the `nature` teacher.

What it shares with the multi-task DQN: the settings, one game's :class:`Player`, the loss, the optimiser.

On a GPU the update is one CUDA graph. The memory stays with the processor, where its frames are compressed and shared
between transitions; a minibatch goes up through pinned memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from polydistill.algorithms.graphs import graphed, upload
from polydistill.algorithms.kickstart import Assistance, helped
from polydistill.algorithms.pqn import Exploration
from polydistill.envs.base import VecEnv
from polydistill.ops.policy import epsilon_greedy, greedy
from polydistill.ops.value import clipped_td_loss, double_dqn_target, dqn_target, linear_schedule, td_error
from polydistill.optim import DQNRMSprop, flatten_optimizer, restore_optimizer
from polydistill.replay.stacks import Stacks
from polydistill.replay.transitions import TransitionMemory, Transitions
from polydistill.rng import stream, torch_seed
from polydistill.settings import Settings

VALIDATION_STATES = 500  # held out once, to watch mean max_a Q (dqn-lua)


class DQNSettings(Settings):
    """Hyper-parameters of Extended Data Table 1. Steps are control steps.

    Attributes:
        update_period: Control steps (of all copies together) per update.
        target_period: Between copies to the target network, counted in ``target_period_unit``: the authors' code counts
            control steps, the article's table says updates.
        n_step: Control steps that a transition spans; more than 1 is not the Nature agent's (Hessel et al. 2018).
        optimizer: ``adam`` is not the Nature agent's; it makes more of few updates.
        eps: RMSProp's, inside the root, for gradients summed over the minibatch as in the authors' code.
        epsilon_steps: Epsilon falls linearly over these, from ``learning_starts`` on.
        hold: An exploratory action is held for min(zeta(2), hold) control steps (Dabney et al. 2021), which sparse
            rewards need; 1 is the Nature agent's epsilon-greedy.
        life_loss_terminal: A lost life ends the bootstrap (never the game).
        double: Double DQN targets (van Hasselt et al. 2016); not part of the Nature agent.
    """

    num_envs: int = Field(1, ge=1)
    minibatch: int = Field(32, ge=1)
    gamma: float = Field(0.99, gt=0, le=1)
    n_step: int = Field(1, ge=1)
    capacity: int = Field(1_000_000, ge=1)
    learning_starts: int = Field(50_000, ge=1)
    update_period: int = Field(4, ge=1)
    target_period: int = Field(10_000, ge=1)
    target_period_unit: Literal["control_steps", "updates"] = "control_steps"
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    learning_rate: float = Field(2.5e-4, gt=0)
    rho: float = Field(0.95, gt=0, lt=1)
    eps: float = Field(0.01, gt=0)
    epsilon_start: float = Field(1.0, ge=0, le=1)
    epsilon_end: float = Field(0.1, ge=0, le=1)
    epsilon_steps: int = Field(1_000_000, ge=0)
    hold: int = Field(1, ge=1)
    life_loss_terminal: bool = True
    double: bool = False

    def epsilon(self, steps: int) -> float:
        """Exploration after ``steps`` control steps: ``epsilon_start`` up to ``learning_starts``, then falling."""
        return linear_schedule(steps, self.epsilon_start, self.epsilon_end, self.learning_starts, self.epsilon_steps)

    def refill(self, steps: int) -> int:
        """Control steps that fill the memory again after a cut: of ``steps`` so far those it begins to learn with."""
        return min(self.capacity, steps, self.learning_starts)

    def target_due(self, unit: str, before: int, after: int) -> bool:
        """Whether a period of the target network ended between two counts of ``control_steps`` or ``updates``."""
        return unit == self.target_period_unit and before // self.target_period != after // self.target_period


class Player:
    """Copies of one game that fill its memory. Rewards are clipped to [-1, 1] there, and a lost life may end it all.

    Args:
        env: Copies of the game.
        budget_bytes: The memory's, at most; None: no limit but its capacity.
    """

    def __init__(self, env: VecEnv, settings: DQNSettings, budget_bytes: int | None = None):
        self.env, self.s = env, settings
        task = env.task
        stacks = Stacks(task.obs_shape, task.stack, np.dtype(task.obs_dtype), env.num_envs)
        self.memory = TransitionMemory(settings.capacity, stacks, settings.n_step, settings.gamma, budget_bytes)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin new episodes; ``obs`` then is what to act on."""
        n = self.env.num_envs
        self.obs = self.env.reset(seed)
        self._returns = np.zeros(n)
        rng, idle = stream(seed, "held actions", self.env.task.name), np.zeros(n, np.int64)
        self._held = Exploration(self.env.task.n_actions, rng, True, 2.0, self.s.hold, idle, idle)

    def choose(self, q: Tensor, epsilon: float, generator: torch.Generator) -> np.ndarray:
        """Values ``[N, n_actions]`` of the game's own actions -> epsilon-greedy actions int64 ``[N]``."""
        if self.s.hold == 1:
            return epsilon_greedy(q, epsilon, None, generator).cpu().numpy()
        return self._held.choose(greedy(q, None, generator).cpu().numpy(), epsilon)

    def step(self, actions: np.ndarray) -> list[float]:
        """One control step in each copy, int ``[N]`` in the game's own actions; raw returns of episodes that ended."""
        step = self.env.step(actions)
        after = step.obs
        if step.final_obs is not None:
            ended = step.ended.reshape(-1, *[1] * (after.ndim - 1))
            after = np.where(ended, step.final_obs, step.obs)
        terminated = step.terminated | (step.life_lost & self.s.life_loss_terminal)
        self.memory.append(self.obs, actions, np.clip(step.reward, -1, 1), terminated, step.truncated, after)
        self.obs = step.obs
        self._returns += step.reward
        finished: list[float] = self._returns[step.ended].tolist()
        self._returns[step.ended] = 0
        return finished


def dqn_loss(
    q: Tensor,
    action: Tensor,
    reward: Tensor,
    terminated: Tensor,
    q_next_target: Tensor,
    q_next_online: Tensor | None,
    discount: Tensor | float,
    valid: Tensor | None = None,
) -> Tensor:
    """Clipped loss of each transition ``[...]``; ``q`` and the values of the next state are ``[..., A]``.

    Args:
        discount: Of the next state's value, ``[...]``: gamma, or gamma^n after n steps.
        q_next_online: With it the target is double DQN's; None: the Nature agent's.
        valid: bool, broadcast to ``[..., A]``: no other action is in the maximum.
    """
    if q_next_online is None:
        target = dqn_target(reward, terminated, q_next_target, discount, valid)
    else:
        target = double_dqn_target(reward, terminated, q_next_online, q_next_target, discount, valid)
    return clipped_td_loss(td_error(q, action, target))


def make_optimizer(parameters: Iterable[nn.Parameter], settings: DQNSettings, examples: int) -> torch.optim.Optimizer:
    """The optimiser for gradients averaged over ``examples`` transitions."""
    parameters = list(parameters)
    if settings.optimizer == "adam":
        cuda = any(p.is_cuda for p in parameters)  # its step count then stays on the GPU, where a graph counts it
        rate, eps = settings.learning_rate, 1.5e-4  # eps: Hessel et al. 2018
        return torch.optim.Adam(parameters, rate, eps=eps, fused=True, capturable=cuda)
    # the mean over the minibatch here, the sum in the authors' code: eps / B^2 makes the steps equal
    return DQNRMSprop(parameters, settings.learning_rate, settings.rho, eps=settings.eps / examples**2)


class DQN:
    """One game's learner; iterate :meth:`run`. Arguments as :class:`~polydistill.algorithms.pqn.PQN`."""

    report_every = 1_000  # control steps between two metrics

    def __init__(self, env: VecEnv, net: nn.Module, settings: DQNSettings, total_steps: int, seed: int, device: str):
        self.net, self.s, self.seed, self.device = net, settings, seed, device
        self.assist: Assistance | None = None
        self.target = copy.deepcopy(net).requires_grad_(False)
        self.steps = self.updates = self.refilled = 0  # the last: control steps that filled the memory again
        self.owed = 0.0  # updates, for control steps not yet learnt from
        self.optimizer = make_optimizer(net.parameters(), settings, settings.minibatch)
        self.player = Player(env, settings)
        self.memory = self.player.memory

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Target network, optimiser, counters. The replay memory is filled again on resume."""
        tensors = {"target": self.target.state_dict(), "optimizer": flatten_optimizer(self.optimizer)}
        names = ("steps", "updates", "refilled", "owed")
        return tensors, {name: getattr(self, name) for name in names}

    def load_state(self, tensors: dict[str, dict[str, Tensor]], counters: dict[str, Any]) -> None:
        """Undo :meth:`state`. The network is the caller's."""
        self.target.load_state_dict(tensors["target"])
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))  # none before the first update
        self.steps, self.updates = counters["steps"], counters["updates"]
        self.refilled, self.owed = counters.get("refilled", 0), counters.get("owed", 0.0)  # older checkpoints lack them

    def epsilon(self) -> float:
        """Exploration after ``steps`` control steps."""
        return self.s.epsilon(self.steps)

    def run(self) -> Iterator[dict[str, float]]:
        """Endless: yields metrics every thousand control steps.

        Going on after :meth:`load_state`, the game begins new episodes and first fills the memory again with as much as
        it had played, ``learning_starts`` steps at most. Those count for nothing.
        """
        s, player, n = self.s, self.player, self.player.env.num_envs
        act = graphed(self._values, self.device)
        # help asks Python at each update what to do: no graph knows of that
        update = graphed(self._update, self.device) if self.assist is None else self._update
        rng = stream(self.seed, "replay", self.steps)
        generator = torch.Generator(self.device).manual_seed(torch_seed(self.seed, "behaviour", self.steps))
        player.reset(self.seed + self.steps % 100_003)  # a resumed run starts new episodes
        finished: list[float] = []
        losses: list[Tensor] = []
        held_out: Tensor | None = None
        missing, due = s.refill(self.steps), self.report_every
        while missing > 0:
            finished += self._play(act, generator)
            self.refilled, missing, due = self.refilled + n, missing - n, due - n
            if due <= 0:  # nothing is learnt yet, but whoever listens may want to stop
                due += self.report_every
                yield self._metrics(finished, losses, float("nan"))
                finished = []
        q_mean, due = float("nan"), self.steps + self.report_every
        while True:
            finished += self._play(act, generator)
            before, self.steps = self.steps, self.steps + n
            if self.steps >= s.learning_starts:
                if held_out is None:
                    held_out = self._tensor(player.memory.sample(rng, VALIDATION_STATES)[1].obs)
                self.owed += n / s.update_period
                while self.owed >= 1:
                    self.owed -= 1
                    losses.append(self._learn(update, player.memory.sample(rng, s.minibatch)[1]))
                    if s.target_due("updates", self.updates - 1, self.updates):
                        self._copy()
                if s.target_due("control_steps", before, self.steps):
                    self._copy()
            if self.steps >= due:
                due += self.report_every
                if held_out is not None:
                    with torch.inference_mode():
                        q_mean = float(self.net(held_out).amax(-1).mean())
                yield self._metrics(finished, losses, q_mean)
                finished, losses = [], []

    def _play(self, act: Callable[[Tensor], Tensor], generator: torch.Generator) -> list[float]:
        """One control step in each copy; returns of episodes that ended."""
        q = act(self._tensor(self.player.obs))
        return self.player.step(self.player.choose(q, self.epsilon(), generator))

    @torch.no_grad()
    def _values(self, obs: Tensor) -> Tensor:
        """``[N, *obs_shape] -> [N, n_actions]``."""
        q: Tensor = self.net(obs)
        return q

    def _metrics(self, finished: list[float], losses: list[Tensor], q_mean: float) -> dict[str, float]:
        loss = float(torch.stack(losses).mean()) if losses else float("nan")
        metrics = {"loss": loss, "q_mean": q_mean, "epsilon": self.epsilon(), "episodes": float(len(finished))}
        return metrics | ({"return": float(np.mean(finished))} if finished else {})

    def _learn(self, update: Callable[..., Tensor], batch: Transitions) -> Tensor:
        """One update; its loss."""
        columns = (batch.obs, batch.action, batch.reward, batch.terminated, batch.discount, batch.next_obs)
        loss = update(*(self._tensor(column) for column in columns)).clone()  # a graph's next loss overwrites it
        self.updates += 1
        return loss

    def _update(
        self, obs: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, discount: Tensor, after: Tensor
    ) -> Tensor:
        """One update from a minibatch of :class:`Transitions`, on the network's device; its loss."""
        with torch.no_grad():
            q_next = self.target(after)
            online = self.net(after) if self.s.double else None
        if self.assist is not None:
            self.assist.begin(self.updates)
        q = self.net(obs)
        loss = dqn_loss(q, action, reward, terminated, q_next, online, discount).mean()
        loss = helped(self.assist, loss, self.steps, obs, q)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _copy(self) -> None:
        self.target.load_state_dict(self.net.state_dict())

    def _tensor(self, array: np.ndarray) -> Tensor:
        return upload(array, self.device)
