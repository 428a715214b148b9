"""Parallel Q-learning, PQN (Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning"): the `fast` teacher.

Many copies of the game, no replay and no target network: Q(lambda) returns over short rollouts, layer normalisation for
stability, a few epochs of minibatches. Exploration may be temporally extended (Dabney et al. 2021, ez-greedy): an
exploratory action is held for a zeta-distributed time, which is what sparse rewards such as Freeway's need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import nn

from polydistill.algorithms.kickstart import Assistance
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
    learning_rate: float = Field(2.5e-4, gt=0, allow_inf_nan=False)
    warmup_updates: int = Field(200, ge=0)
    anneal: bool = True
    max_grad_norm: float = Field(10.0, gt=0)
    epsilon_start: float = Field(1.0, ge=0, le=1)
    epsilon_end: float = Field(0.02, ge=0, le=1)
    epsilon_fraction: float = Field(0.1, ge=0, le=1)
    ez_greedy: bool = False
    ez_mu: float = Field(2.0, gt=1, allow_inf_nan=False)
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
        self.assist: Assistance | None = None
        self.optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate, eps=1e-5, fused=True)

    def state(self) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, int]]:
        """Tensors and counters of a checkpoint. The games' inner states are not part of it."""
        return {"optimizer": flatten_optimizer(self.optimizer)}, {"steps": self.steps, "updates": self.updates}

    def load_state(self, tensors: dict[str, dict[str, torch.Tensor]], counters: dict[str, int]) -> None:
        """Undo :meth:`state`. The network is the caller's."""
        restore_optimizer(self.optimizer, tensors["optimizer"])
        self.steps, self.updates = counters["steps"], counters["updates"]

    def epsilon(self) -> float:
        s = self.s
        falls = s.epsilon_fraction * self.total_steps
        done = min(1.0, self.steps / falls) if falls else 1.0
        return s.epsilon_start + (s.epsilon_end - s.epsilon_start) * done

    def _lr(self) -> float:
        s = self.s
        rate = s.learning_rate * min(1.0, (self.updates + 1) / max(s.warmup_updates, 1))
        return rate * max(0.0, 1 - self.steps / self.total_steps) if s.anneal else rate

    @torch.no_grad()
    def q_values(self, obs: np.ndarray) -> torch.Tensor:
        """float32 ``[N, n_actions]`` on the CPU."""
        return self.net(torch.from_numpy(obs).to(self.device)).cpu()

    def run(self) -> Iterator[dict[str, float]]:
        """Endless: collect one rollout, learn from it, yield its metrics."""
        s, n, t_max = self.s, self.env.num_envs, self.s.rollout
        rng = np.random.default_rng([self.seed, self.steps])
        explore = Exploration(
            self.env.task.n_actions, rng, s.ez_greedy, s.ez_mu, s.ez_max, np.zeros(n, np.int64), np.zeros(n, np.int64)
        )
        # a resumed run starts new episodes, with another seed
        obs = self.env.reset(self.seed + self.steps % 100_003)
        buffer = np.zeros((t_max, n, *obs.shape[1:]), obs.dtype)
        actions = np.zeros((t_max, n), np.int64)
        reward, terminated, ended = (np.zeros((t_max, n), d) for d in (np.float32, bool, bool))
        returns: np.ndarray = np.zeros(n)
        while True:
            worth = torch.zeros(t_max + 1, n)
            q_final = torch.zeros(t_max, n)
            q_seen = torch.zeros(t_max, n, self.env.task.n_actions)
            finished: list[float] = []
            for t in range(t_max):
                q = self.q_values(obs)
                q_seen[t], worth[t] = q, expected_value(q, s.expected_epsilon)
                buffer[t] = obs
                actions[t] = explore.choose(q.argmax(-1).numpy(), self.epsilon())
                step = self.env.step(actions[t])
                obs = step.obs
                reward[t] = np.clip(step.reward, -1, 1)
                terminated[t] = step.terminated | step.life_lost
                ended[t] = step.ended | step.life_lost
                if step.truncated.any() and step.final_obs is not None:
                    q_final[t] = expected_value(self.q_values(step.final_obs), s.expected_epsilon)
                    q_final[t][torch.from_numpy(~step.truncated)] = 0
                returns += step.reward
                finished += returns[step.ended].tolist()
                returns[step.ended] = 0
                self.steps += n
            worth[t_max] = expected_value(self.q_values(obs), s.expected_epsilon)
            cut = torch.from_numpy(ended)
            q_next = torch.where(cut, q_final, worth[1:])
            target = q_lambda_returns(
                torch.from_numpy(reward), torch.from_numpy(terminated), cut, q_next, gamma=s.gamma, lam=s.lam
            )
            target = advantage_target(target, q_seen, torch.from_numpy(actions), s.advantage)
            metrics = self._learn(
                buffer.reshape(t_max * n, *obs.shape[1:]), actions.reshape(-1), target.reshape(-1), rng
            )
            metrics |= {"epsilon": self.epsilon(), "q_mean": float(worth.mean()), "episodes": len(finished)}
            if finished:
                metrics["return"] = float(np.mean(finished))
            yield metrics

    def _learn(
        self, obs: np.ndarray, actions: np.ndarray, target: torch.Tensor, rng: np.random.Generator
    ) -> dict[str, float]:
        s = self.s
        flat = torch.from_numpy(obs.reshape(len(obs), -1)).to(
            self.device
        )  # once: minibatches are cut where the network is
        chosen, target = torch.from_numpy(actions).to(self.device), target.to(self.device)
        losses: list[torch.Tensor] = []
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        for _ in range(s.epochs):
            order = torch.from_numpy(rng.permutation(len(obs))).to(self.device)
            for index in order.split(s.minibatch):
                batch = flat.index_select(0, index).view(-1, *obs.shape[1:])
                if self.assist is not None:
                    self.assist.begin(self.updates)
                values = self.net(batch)
                q = values.gather(1, chosen[index, None]).squeeze(1)
                loss = 0.5 * (q - target[index]).square().mean()
                if self.assist is not None and (term := self.assist.term(self.steps, batch, values)) is not None:
                    loss = loss + term
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), s.max_grad_norm)
                self.optimizer.step()
                self.updates += 1
                losses.append(loss.detach())
        return {"loss": float(torch.stack(losses).mean())}
