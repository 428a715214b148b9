"""Parallel Q-learning, PQN (Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning"): the `fast` teacher.

Many copies of the game, no replay and no target network: Q(lambda) returns over short rollouts, layer normalisation for
stability, a few epochs of minibatches. Exploration may be temporally extended (Dabney et al. 2021, ez-greedy): an
exploratory action is held for a zeta-distributed time, which is what sparse rewards such as Freeway's need.

On a GPU a rollout never leaves it: observations go up, and one small read per control step brings the greedy actions
back, without which the emulators cannot go on. Nothing else waits but the metrics, once per rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from polydistill.algorithms.graphs import Graphed, graphed, upload
from polydistill.algorithms.kickstart import Assistance, helped
from polydistill.algorithms.rollout import Rollout
from polydistill.envs.base import VecEnv
from polydistill.ops.value import advantage_target, expected_value, q_lambda_returns
from polydistill.optim import flatten_optimizer, restore_optimizer
from polydistill.settings import Settings


class PQNSettings(Settings):
    """Hyper-parameters of parallel Q-learning. Steps are control steps.

    Attributes:
        num_envs, rollout: One rollout is ``rollout`` control steps in each of ``num_envs`` copies.
        minibatch, epochs: Each rollout is learnt from ``epochs`` times in minibatches of this size.
        lam: Lambda of the Q(lambda) returns.
        warmup_updates: Adam's learning rate rises linearly over these.
        anneal: The learning rate then falls linearly to 0 at the last step.
        epsilon_fraction: Share of the training in which epsilon falls from ``epsilon_start`` to ``epsilon_end``.
        advantage: Advantage learning (Bellemare et al. 2016, "Increasing the Action Gap"): this share of the gap
            max_a Q(s, a) - Q(s, a_t) is taken off each target, which widens action gaps by 1 / (1 - share) and leaves
            the best action's value alone. For games where one step matters little, such as Freeway.
        expected_epsilon: A state is worth what an epsilon-greedy policy with this epsilon makes of it (expected SARSA,
            Sutton & Barto 2018, eq. 6.9), not its best action's value: policies learn to keep a distance from where one
            random action loses the game. 0: Q-learning.
        ez_greedy, ez_mu, ez_max: Hold an exploratory action for min(zeta(ez_mu), ez_max) control steps.
    """

    num_envs: int = Field(32, ge=1)
    rollout: int = Field(32, ge=1)
    minibatch: int = Field(128, ge=1)
    epochs: int = Field(3, ge=1)
    gamma: float = Field(0.99, ge=0, le=1)
    lam: float = Field(0.65, ge=0, le=1)
    learning_rate: float = Field(2.5e-4, gt=0)
    warmup_updates: int = Field(200, ge=0)
    anneal: bool = True
    max_grad_norm: float = Field(10.0, gt=0)
    epsilon_start: float = Field(1.0, ge=0, le=1)
    epsilon_end: float = Field(0.02, ge=0, le=1)
    epsilon_fraction: float = Field(0.1, ge=0, le=1)
    ez_greedy: bool = False
    ez_mu: float = Field(2.0, gt=1)
    ez_max: int = Field(100, ge=1)
    advantage: float = Field(0.0, ge=0, lt=1)
    expected_epsilon: float = Field(0.0, ge=0, le=1)


@dataclass
class Exploration:
    """Epsilon-greedy over ``n`` environments; with ``ez`` each exploratory action is held for a zeta(mu) duration."""

    n_actions: int
    rng: np.random.Generator
    ez: bool
    mu: float
    longest: int
    left: np.ndarray
    held: np.ndarray

    def choose(self, greedy: np.ndarray, epsilon: float) -> np.ndarray:
        """Actions ``[N]`` from greedy ones ``[N]``."""
        n = len(greedy)
        start = (self.left == 0) & (self.rng.random(n) < epsilon)
        self.held = np.where(start, self.rng.integers(0, self.n_actions, n), self.held)
        length = np.minimum(self.rng.zipf(self.mu, n), self.longest) if self.ez else np.ones(n, dtype=np.int64)
        self.left = np.where(start, length, self.left)
        explore = self.left > 0
        self.left = np.maximum(self.left - 1, 0)
        return np.where(explore, self.held, greedy)


class PQN:
    """One game's learner; iterate :meth:`run`, stop whenever you like.

    Args:
        env: Copies of the game (``settings.num_envs`` of them).
        net: ``uint8 [B, *obs] -> float32 [B, n_actions]``.
        total_steps: Control steps of the whole training; epsilon and the learning rate are scheduled over it.
        seed: Root of the environment's and exploration's randomness.
    """

    def __init__(self, env: VecEnv, net: nn.Module, settings: PQNSettings, total_steps: int, seed: int, device: str):
        self.env, self.net, self.s = env, net, settings
        self.total_steps, self.seed, self.device = total_steps, seed, device
        self.steps = self.updates = 0
        self.epsilon_cap = 1.0  # a longer schedule does not make a trained network explore again
        self.assist: Assistance | None = None
        cuda = torch.device(device).type == "cuda"
        rate = torch.tensor(settings.learning_rate, device=device) if cuda else settings.learning_rate  # see _learn
        self.optimizer = torch.optim.Adam(net.parameters(), lr=rate, eps=1e-5, fused=True, capturable=cuda)
        self._rollout = Rollout(settings.rollout, env.num_envs, env.task, device)

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors and counters of a checkpoint. The games' inner states are not part of it."""
        counters = {"steps": self.steps, "updates": self.updates, "epsilon": self.epsilon()}
        return {"optimizer": flatten_optimizer(self.optimizer)}, counters

    def load_state(self, tensors: dict[str, dict[str, Tensor]], counters: dict[str, Any]) -> None:
        """Undo :meth:`state`. The network is the caller's."""
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        self.steps, self.updates = counters["steps"], counters["updates"]
        self.epsilon_cap = counters.get("epsilon", 1.0)  # older checkpoints lack it

    def epsilon(self) -> float:
        s = self.s
        falls = s.epsilon_fraction * self.total_steps
        done = min(1.0, self.steps / falls) if falls else 1.0
        return min(self.epsilon_cap, s.epsilon_start + (s.epsilon_end - s.epsilon_start) * done)

    def _lr(self) -> float:
        s = self.s
        rate = s.learning_rate * min(1.0, (self.updates + 1) / max(s.warmup_updates, 1))
        return rate * max(0.0, 1 - self.steps / self.total_steps) if s.anneal else rate

    def run(self) -> Iterator[dict[str, float]]:
        """Endless: collect one rollout, learn from it, yield its metrics."""
        s, n, t_max, kept = self.s, self.env.num_envs, self.s.rollout, self._rollout
        rng = np.random.default_rng([self.seed, self.steps])
        explore = Exploration(
            self.env.task.n_actions, rng, s.ez_greedy, s.ez_mu, s.ez_max, np.zeros(n, np.int64), np.zeros(n, np.int64)
        )
        act, aim = graphed(self._values, self.device), graphed(self._targets, self.device)
        # help asks Python at each update what to do, and Warmup switches gradients on and off: no graph knows of that
        update = graphed(self._update, self.device) if self.assist is None else self._update
        # a resumed run starts new episodes, with another seed
        obs = self.env.reset(self.seed + self.steps % 100_003)
        actions = np.zeros((t_max, n), np.int64)
        reward, terminated, ended = (np.zeros((t_max, n), d) for d in (np.float32, bool, bool))
        returns: np.ndarray = np.zeros(n)
        while True:
            q_final = torch.zeros(t_max, n, device=self.device)
            finished: list[float] = []
            for t in range(t_max):
                greedy = self._see(t, obs, act)
                actions[t] = explore.choose(greedy.cpu().numpy(), self.epsilon())
                step = self.env.step(actions[t])
                obs = step.obs
                reward[t] = np.clip(step.reward, -1, 1)
                terminated[t] = step.terminated | step.life_lost
                ended[t] = step.ended | step.life_lost
                if step.truncated.any() and step.final_obs is not None:
                    worth = expected_value(self._values(upload(step.final_obs, self.device))[0], s.expected_epsilon)
                    q_final[t] = torch.where(upload(step.truncated, self.device), worth, 0)
                returns += step.reward
                finished += returns[step.ended].tolist()
                returns[step.ended] = 0
                self.steps += n
            self._see(t_max, obs, act)
            columns = (upload(column, self.device) for column in (actions, reward, terminated, ended))
            kept.actions[:], kept.target[:], q_mean = aim(*columns, q_final)
            metrics = self._learn(update, rng) | {"q_mean": float(q_mean)}
            metrics |= {"epsilon": self.epsilon(), "episodes": len(finished)}
            if finished:
                metrics["return"] = float(np.mean(finished))
            yield metrics

    @torch.no_grad()
    def _values(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Q-values ``[N, n_actions]`` and greedy actions ``[N]`` of ``[N, *obs_shape]``."""
        q: Tensor = self.net(obs)
        return q, q.argmax(-1)

    def _see(self, t: int, obs: np.ndarray, act: Graphed[tuple[Tensor, Tensor]]) -> Tensor:
        """Keep what is seen at step ``t`` and what the network says of it; greedy actions ``[N]``."""
        self._rollout.obs[t].copy_(upload(obs, self.device))
        self._rollout.q[t], greedy = act(self._rollout.obs[t])
        return greedy

    def _targets(
        self, actions: Tensor, reward: Tensor, terminated: Tensor, ended: Tensor, q_final: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What was done and what is learnt, ``[T * N]`` each, and the mean of what the states are worth.

        Arguments are ``[T, N]``; ``q_final`` is what a truncated episode's last state is worth.
        """
        s, q = self.s, self._rollout.q
        worth = expected_value(q, s.expected_epsilon)
        q_next = torch.where(ended, q_final, worth[1:])
        target = q_lambda_returns(reward, terminated, ended, q_next, gamma=s.gamma, lam=s.lam)
        target = advantage_target(target, q[:-1], actions, s.advantage)
        return actions.flatten(), target.flatten(), worth.mean()

    def _learn(self, update: Callable[[Tensor], Tensor], rng: np.random.Generator) -> dict[str, float]:
        """Several epochs of minibatches of the rollout."""
        s, rows, rate = self.s, len(self._rollout.target), self._lr()
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # where a graph reads it
            else:
                group["lr"] = rate
        order = upload(np.stack([rng.permutation(rows) for _ in range(s.epochs)]), self.device)
        before, loss = self.updates, torch.zeros((), device=self.device)
        for epoch in order:
            for index in epoch.split(s.minibatch):
                loss += update(index)
                self.updates += 1
        return {"loss": float(loss) / (self.updates - before)}

    def _update(self, index: Tensor) -> Tensor:
        """One update from these rows of the rollout, int64 ``[B]``; its loss."""
        kept = self._rollout
        batch = kept.batch(index)
        if self.assist is not None:
            self.assist.begin(self.updates)
        values = self.net(batch)
        q = values.gather(1, kept.actions[index, None]).squeeze(1)
        loss = 0.5 * (q - kept.target[index]).square().mean()
        loss = helped(self.assist, loss, self.steps, batch, values)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.s.max_grad_norm)
        self.optimizer.step()
        return loss.detach()
