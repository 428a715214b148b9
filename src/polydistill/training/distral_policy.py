"""Distral's policies as something that acts: one per task, and the distilled one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polydistill.envs.base import box_actions
from polydistill.errors import UserError
from polydistill.evaluation.remembering import DISTILLED, Remembering, draw, score_remembering
from polydistill.evaluation.rows import Label, Row
from polydistill.nets.columns import ColumnOutput
from polydistill.tasks import Task, place_of
from polydistill.training.distral_files import Saved
from polydistill.training.distral_networks import Look


@dataclass(frozen=True)
class DistralPolicy:
    """What a run of Distral has learnt, ready to act. These networks remember: they are told what they knew before.

    Attributes:
        saved: The networks, on ``device``.
        path: Where they were loaded from.
    """

    saved: Saved
    path: Path
    device: torch.device

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it plays."""
        return self.saved.tasks

    @property
    def distils(self) -> bool:
        """Whether there is a distilled policy."""
        return self.saved.nets.agent.distils

    def chances(self, task: str | None = None, *, distilled: bool = False) -> Remembering:
        """A policy as a function: observations, which episodes begin, memory -> what it would do, memory.

        Observations are ``[N, *obs_shape]``, beginnings bool ``[N]``; the first memory is None. The answer is
        float32 probabilities ``[N, A]`` of the task's own actions; of continuous ones means and variances
        ``[N, 2, D]`` in the units of the task's box, where -1 and 1 are its bounds.

        Args:
            task: Whose policy; may be left out when there is only one task.
            distilled: The distilled policy alone instead; it is the same for every task.

        Raises:
            UserError: unknown task, or there is no distilled policy.
        """
        g, nets = place_of(task, self.tasks, self.path), self.saved.nets
        if not distilled:
            return self._playing(partial(nets.look, g), nets.empty)
        if nets.shared is None or not self.distils:
            raise UserError(f"{self.path}: {self.saved.agent} has no distilled policy; the KL agents have")
        return self._playing(nets.shared, nets.shared.empty)

    def _playing(self, look: Callable[..., Look | ColumnOutput], empty: Callable[[int], Any]) -> Remembering:
        @torch.inference_mode()
        def play(obs: np.ndarray, start: np.ndarray, memory: Any) -> tuple[np.ndarray, Any]:
            seen, first = (torch.from_numpy(x).to(self.device)[None] for x in (obs, start))
            out = look(seen, first, memory if memory is not None else empty(len(obs)))
            numbers = (out.logits if isinstance(out, ColumnOutput) else out.policy)[0]
            return (numbers if self.tasks[0].continuous else numbers.softmax(-1)).cpu().numpy(), out.memory

        return play

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        task: str | None = None,
        rng: np.random.Generator | None = None,
        distilled: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Actions for one observation or a batch, as Stable-Baselines3's recurrent policies give them.

        Args:
            observation: ``[*obs_shape]`` or ``[B, *obs_shape]``.
            state: What the last call returned; None at first.
            episode_start: Bool ``[B]``, an episode begins with this observation; None: none does.
            deterministic: The likeliest action; False draws one, which is how Distral's agents train and are scored.
            task, distilled: Whose policy, see :meth:`chances`.
            rng: Randomness of ``deterministic=False``; None makes a fresh one.

        Returns:
            Actions as the task's environment takes them (own numbers, or points of its box: a single one for a single
            observation), and the state for the next call.

        Raises:
            UserError: unknown task, no distilled policy, or an observation of another shape or dtype.
        """
        playing = self.tasks[place_of(task, self.tasks, self.path)]
        batch, single = playing.batch(observation)
        start = np.zeros(len(batch), bool) if episode_start is None else np.atleast_1d(np.asarray(episode_start, bool))
        if start.shape != (len(batch),):
            raise UserError(f"{playing.name}: {len(batch)} observations, but episode_start of shape {start.shape}")
        chances, state = self.chances(task, distilled=distilled)(batch, start, state)
        if not deterministic:
            actions = draw(playing, chances, rng or np.random.default_rng())
        else:
            actions = chances[:, 0] if playing.continuous else chances.argmax(-1)
        if playing.continuous:
            actions = box_actions(actions, playing, len(batch))
        return (actions[0] if single else actions), state


def score(
    policy: DistralPolicy, episodes: int, *, threads: int = 0, on_task: Callable[[str], None] = lambda name: None
) -> tuple[list[Row], list[Row]]:
    """Rows of every task's policy, and of the distilled policy in every task, where there is one: else none."""
    saved = policy.saved
    label = Label(saved.agent, saved.seed, saved.updates, saved.control_steps)
    own: list[Row] = []
    alone: list[Row] = []
    for task in policy.tasks:
        on_task(task.name)
        own += score_remembering(task, policy.chances(task.name), episodes, label, threads=threads)
        if policy.distils:
            chances, of_pi0 = policy.chances(task.name, distilled=True), replace(label, variant=DISTILLED)
            alone += score_remembering(task, chances, episodes, of_pi0, threads=threads)
    return own, alone
