"""Tasks and a shared policy learn together (Teh et al. 2017, section 4.2): batched, synchronous advantage actor-critic.

The paper's workers send gradients to parameter servers whenever they are ready. Here ``num_envs`` copies of every task
advance together and all of them make one update: the same unrolls of 20 control steps and the same losses, without
stale gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from polydistill.algorithms.distral import AGENTS, Unroll, losses, total
from polydistill.envs.base import Step, VecEnv, step_all
from polydistill.errors import UserError
from polydistill.ops.distral import check_alpha_beta
from polydistill.ops.value import linear_schedule
from polydistill.optim import DQNRMSprop, flatten_optimizer, restore_optimizer
from polydistill.rng import seeded_init, torch_seed
from polydistill.settings import Settings
from polydistill.tasks import Task
from polydistill.training.distral_networks import Networks, Remembered

Name = Literal["A3C", "A3C_multitask", "A3C_2col", "KL_1col", "KL+ent_1col", "KL_2col", "KL+ent_2col"]


class DistralSettings(Settings):
    """How the agents learn.

    Attributes:
        agent: One of Table 1's seven.
        beta: Inverse temperature, 1 / (c_KL + c_Ent); the weight of the A3C agents' entropy bonus is 1 / beta.
        gamma: Discount per control step.
        unroll: Control steps between updates, through which gradients flow back in time.
        num_envs: Copies of each task.
        learning_rate: In the beginning; it falls linearly to a sixth.
        rho, eps: Of RMSProp; eps stands inside the root. A3C has 0.1 for sums over 20 steps and one update per worker;
            with one update for all of them it has to be small.
        max_grad_norm: Of all networks together.
        value_weight: Of the values' squared error.
        coupling: Of the squared distance between a task's values and the shared network's.
        hidden, lstm: Units before the LSTM and in it; ``lstm`` 0: no memory.
    """

    agent: Name = "KL+ent_2col"
    beta: float = Field(1_000.0, gt=0, allow_inf_nan=False)
    gamma: float = Field(0.99, ge=0, le=1)
    unroll: int = Field(20, ge=1)
    num_envs: int = Field(8, ge=1)
    learning_rate: float = Field(4e-4, gt=0)
    rho: float = Field(0.99, ge=0, lt=1)
    eps: float = Field(1e-7, gt=0)
    max_grad_norm: float = Field(40.0, gt=0)
    value_weight: float = Field(0.5, ge=0)
    coupling: float = Field(0.005, ge=0)
    hidden: int = Field(256, ge=1)
    lstm: int = Field(256, ge=0)


def require_one_action_set(tasks: Sequence[Task]) -> None:
    """Refuse tasks that cannot share a policy.

    Raises:
        UserError: other actions or bounds, or observations of another shape, than the first task's; a task named
            twice; no task.
    """
    if not tasks:
        raise UserError("distral needs tasks: name some")
    first = tasks[0]
    for task in tasks[1:]:
        if task.continuous != first.continuous:
            mine, theirs = ("continuous" if t.continuous else "discrete" for t in (task, first))
            raise UserError(
                f"{task.name} has {mine} actions, but {first.name} {theirs} ones: one policy needs one kind"
            )
        if task.action_meanings != first.action_meanings:
            mine, theirs = (", ".join(t.action_meanings) for t in (task, first))
            raise UserError(f"{task.name} has the actions {mine}, but {first.name} {theirs}: one policy needs one set")
        if (task.action_low, task.action_high) != (first.action_low, first.action_high):
            mine, theirs = (f"{list(t.action_low)} to {list(t.action_high)}" for t in (task, first))
            raise UserError(f"{task.name} has actions from {mine}, but {first.name} {theirs}: one policy needs one box")
        if (task.obs_shape, task.obs_dtype) != (first.obs_shape, first.obs_dtype):
            mine, theirs = (f"{t.obs_dtype} {list(t.obs_shape)}" for t in (task, first))
            raise UserError(f"{task.name} shows {mine}, but {first.name} {theirs}: one network reads one kind")
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("a task is named twice")


class _Rows:
    """What one unroll of one task saw."""

    def __init__(self, memory: Remembered):
        self.memory = memory
        self.obs: list[np.ndarray] = []
        self.start: list[np.ndarray] = []
        self.action: list[np.ndarray] = []
        self.steps: list[Step] = []
        self.cut: list[Tensor] = []  # values of last observations of truncated episodes, 0 elsewhere


class Distral:
    """All tasks, all networks, one optimiser.

    Args:
        envs: One per task; reset here.
        total_steps: Control steps of each task in the whole training, for the learning rate.

    Attributes:
        steps: Control steps of each task so far.

    Raises:
        UserError: tasks without a common action set.
    """

    def __init__(self, envs: Sequence[VecEnv], settings: DistralSettings, total_steps: int, seed: int, device: str):
        self.s, self.envs, self.total_steps, self.device = settings, envs, total_steps, device
        self.tasks = [env.task for env in envs]
        require_one_action_set(self.tasks)
        self.agent = AGENTS[settings.agent]
        check_alpha_beta(self.agent.alpha, settings.beta)
        with seeded_init(seed, "distral"):
            self.nets = Networks(self.agent, self.tasks, settings.hidden, settings.lstm).to(device)
        self.optimizer = DQNRMSprop(
            self.nets.parameters(), lr=settings.learning_rate, rho=settings.rho, eps=settings.eps, centered=False
        )
        self.generator = torch.Generator().manual_seed(torch_seed(seed, "distral", "actions"))
        self.steps = self.updates = 0
        self.finished: list[deque[float]] = [deque(maxlen=100) for _ in envs]
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin new episodes everywhere."""
        self._obs = [env.reset(seed) for env in self.envs]
        self._start = [np.ones(env.num_envs, bool) for env in self.envs]
        self._memory = [self.nets.empty(env.num_envs) for env in self.envs]
        self._returns = [np.zeros(env.num_envs) for env in self.envs]

    # ------------------------------------------------------------------ playing
    def _collect(self) -> list[_Rows]:
        rows = [_Rows(memory) for memory in self._memory]
        for _ in range(self.s.unroll):
            actions = [self._act(g, rows[g]) for g in range(len(self.envs))]
            for g, step in enumerate(step_all(self.envs, actions)):
                self._after(g, rows[g], step)
        self.steps += self.s.unroll * self.s.num_envs
        return rows

    @torch.inference_mode()
    def _act(self, g: int, rows: _Rows) -> np.ndarray:
        obs, start = self._obs[g], self._start[g]
        look = self.nets.look(g, self._tensor(obs)[None], self._tensor(start)[None], self._memory[g])
        self._memory[g] = look.memory
        action = self.nets.family.draw(look.policy[0].cpu(), self.generator).numpy()
        rows.obs.append(obs)
        rows.start.append(start)
        rows.action.append(action)
        return action

    def _after(self, g: int, rows: _Rows, step: Step) -> None:
        rows.steps.append(step)
        value = torch.zeros(len(step.reward))
        if step.truncated.any():
            assert step.final_obs is not None
            value = torch.where(torch.from_numpy(step.truncated), self._peek(g, step.final_obs), value)
        rows.cut.append(value)
        self._obs[g], self._start[g] = step.obs, step.ended
        self._returns[g] += step.reward
        self.finished[g].extend(self._returns[g][step.ended].tolist())
        self._returns[g][step.ended] = 0

    @torch.inference_mode()
    def _peek(self, g: int, obs: np.ndarray) -> Tensor:
        """Values of observations ``[N, ...]`` that go on from the present memories, which stay what they are."""
        none = torch.zeros(1, len(obs), dtype=torch.bool, device=self.device)
        return self.nets.look(g, self._tensor(obs)[None], none, self._memory[g]).value[0].cpu()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    # ------------------------------------------------------------------ learning
    def _unroll(self, g: int, rows: _Rows) -> Unroll:
        obs, start = self._tensor(np.stack(rows.obs)), self._tensor(np.stack(rows.start))
        look = self.nets.look(g, obs, start, rows.memory)
        with torch.no_grad():
            following = torch.where(
                torch.from_numpy(self._start[g]), torch.zeros(len(self._obs[g])), self._peek(g, self._obs[g])
            )
            after = torch.cat([look.value[1:], following[None].to(self.device)])
            truncated = self._tensor(np.stack([step.truncated for step in rows.steps]))
            after = torch.where(truncated, torch.stack(rows.cut).to(self.device), after)
        both = look.shared is not None and look.own is not None
        return Unroll(
            h=None if look.shared is None else look.shared.logits,
            f=None if look.own is None else look.own.logits,
            value=look.value,
            shared_value=look.shared.value if both and look.shared is not None else None,
            action=self._tensor(np.stack(rows.action)),
            reward=self._tensor(np.stack([step.reward for step in rows.steps])),
            next_value=after,
            terminated=self._tensor(np.stack([step.terminated for step in rows.steps])),
            ended=self._tensor(np.stack([step.ended for step in rows.steps])),
            family=self.nets.family,
        )

    def update(self) -> dict[str, float]:
        """Play an unroll of every task, and learn from it: losses, means over the tasks.

        The shared network's gradient is the sum over tasks (eq. 10).
        """
        rows = self._collect()
        start = self.s.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = linear_schedule(self.steps, start, start / 6, 0, self.total_steps)
        self.optimizer.zero_grad(set_to_none=True)
        found: dict[str, float] = {}
        for g in range(len(self.envs)):
            terms = losses(
                self.agent, self._unroll(g, rows[g]), self.s.beta, self.s.gamma, self.s.value_weight, self.s.coupling
            )
            total(terms).backward()
            for name, loss in terms.items():
                found[name] = found.get(name, 0.0) + float(loss.detach()) / len(self.envs)
        norm = nn.utils.clip_grad_norm_(self.nets.parameters(), self.s.max_grad_norm)
        if not torch.isfinite(norm):
            raise UserError(
                f"the gradient is NaN or infinite after {self.updates:,} updates: the last checkpoint is sound, try a "
                "smaller settings.learning_rate"
            )
        self.optimizer.step()
        self.updates += 1
        return {**found, "grad_norm": float(norm)}

    def run(self) -> Iterator[dict[str, float]]:
        """Updates until every task has played ``total_steps``."""
        while self.steps < self.total_steps:
            yield self.update()

    def mean_returns(self) -> list[float | None]:
        """Of each task's last 100 finished episodes; None before the first."""
        return [float(np.mean(done)) if done else None for done in self.finished]

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """What a checkpoint needs; games begin anew after it."""
        tensors = {"nets": self.nets.state_dict(), "optimizer": flatten_optimizer(self.optimizer)}
        tensors["generator"] = {"state": self.generator.get_state()}
        returns = [list(done) for done in self.finished]
        return tensors, {"steps": self.steps, "updates": self.updates, "finished": returns}

    def load_state(self, tensors: dict[str, dict[str, Tensor]], counters: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        self.nets.load_state_dict(tensors["nets"])
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        self.generator.set_state(tensors["generator"]["state"])
        self.steps, self.updates = counters["steps"], counters["updates"]
        for done, saved in zip(self.finished, counters["finished"], strict=True):
            done.clear()
            done.extend(saved)
