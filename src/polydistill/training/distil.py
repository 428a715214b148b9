"""The loop: play, remember, draw, learn. Whoever iterates it decides when to stop, log, evaluate and save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from polydistill.algorithms.policy_distillation import Loss, Targets
from polydistill.ops.weights import importance_weights
from polydistill.settings import Settings
from polydistill.training.collect import Actor, as_array
from polydistill.training.learner import Learner, Minibatch


class Schedule(Settings):
    """How playing and learning alternate.

    Attributes:
        warmup: Control steps of each task before the first update.
        collect: Control steps of each task in one round ...
        updates: ... and updates after it (Yin & Pan: 4 and 1; Rusu: 54,000 and 10,000).
        games: What one update sees. ``joint``: all tasks, which play in lock-step. ``random`` (Rusu, App. A): the tasks
            take turns adding ``collect`` control steps, and each update draws from one memory chosen at random.
            ``round_robin_episode`` (Rusu, 3.3): a task plays, and updates draw from its memory, until one of its
            episodes ends; then the next.
        total_updates: Updates of the whole run.
    """

    warmup: int = Field(10_000, ge=1)
    collect: int = Field(4, ge=1)
    updates: int = Field(1, ge=1)
    games: Literal["joint", "random", "round_robin_episode"] = "joint"
    total_updates: int = Field(1_000_000, ge=1)


class Rectangle:
    """Draws ``B`` samples of every task, or of some, into buffers that are used again and again.

    Args:
        valid: bool ``[G, 1, A]``, the actions each task has.
        temperature: ``[G, 1, 1]``, see :class:`~polydistill.algorithms.policy_distillation.Targets`.
        beta: Updates done so far -> exponent of the importance weights.
        features: Per task, length ``F`` and dtype of the features to draw, where the memories keep them.
        experts: Per task, what the teacher's features are of a drawn minibatch (of observations, or of ``features``);
            asked at each draw, as in the Actor-Mimic authors' code, so nothing of it is stored.
    """

    def __init__(
        self,
        actors: Sequence[Actor],
        batch: int,
        valid: Tensor,
        temperature: Tensor,
        beta: Callable[[int], float],
        device: torch.device,
        features: Sequence[tuple[int, torch.dtype]] | None = None,
        experts: Sequence[Callable[[Tensor], Tensor]] | None = None,
    ):
        self.experts = experts
        self.actors, self.batch, self.beta, self.device = actors, batch, beta, device
        self.valid, self.temperature = valid.to(device), temperature.to(device)
        pin = device.type == "cuda"
        tasks = [a.env.task for a in actors]
        kinds = [(t.obs_shape, getattr(torch, t.obs_dtype)) for t in tasks]
        if features is not None:
            kinds = [((length,), dtype) for length, dtype in features]
        self.encoded = features is not None
        self._obs = [torch.zeros(batch, *shape, dtype=dtype, pin_memory=pin) for shape, dtype in kinds]
        self._teacher = torch.zeros(len(actors), batch, valid.shape[-1], pin_memory=pin)
        self._weights = torch.ones(len(actors), batch, pin_memory=pin)
        self._drawn: list[tuple[int, np.ndarray]] = []

    def draw(self, rng: np.random.Generator, tasks: Sequence[int] | None = None, updates: int = 0) -> Minibatch:
        """The minibatch of ``tasks`` (None: all) for the update after ``updates``; valid until the next call."""
        self._drawn, beta = [], self.beta(updates)
        rows = range(len(self.actors)) if tasks is None else tasks
        for g in rows:
            memory = self.actors[g].memory
            draw, batch = memory.sample(rng, self.batch, out=as_array(self._obs[g]))
            self._teacher[g] = torch.from_numpy(batch.teacher)
            self._weights[g] = torch.from_numpy(importance_weights(draw.prob, len(memory), beta))
            self._drawn.append((g, draw.slots))
        of = slice(None) if tasks is None else list(tasks)
        move = [self._obs[g] for g in rows] + [self._teacher[of], self._weights[of]]
        *obs, values, weights = [x.to(self.device, non_blocking=True) for x in move]
        told = None if self.experts is None else {g: self.experts[g](x) for g, x in zip(rows, obs, strict=True)}
        targets = Targets(values, self.valid[of], self.temperature[of], told)
        return Minibatch(obs, targets, weights, tasks, self.encoded)

    def prioritise(self, loss: Loss) -> None:
        """Send the priorities of the last draw home."""
        if loss.priority is None:
            return
        losses = loss.per_example.detach().cpu().numpy()
        for (g, slots), row, lost in zip(self._drawn, loss.priority.cpu().numpy(), losses, strict=True):
            good = np.isfinite(row)  # the learner skips and counts what is not
            memory = self.actors[g].memory
            memory.update(slots[good], row[good])
            if (note := getattr(memory.sampler, "note_loss", None)) is not None:
                note(slots[good], lost[good])


#: Which tasks the next update draws from; None: all.
Choose = Callable[[np.random.Generator], Sequence[int] | None]


def distil(
    actors: Sequence[Actor],
    learner: Learner,
    rectangle: Rectangle,
    schedule: Schedule,
    rng: np.random.Generator,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Loss]:
    """Endless: yields the loss of every update. ``stopping`` ends it between two control steps."""
    copies = max(a.env.num_envs for a in actors)
    owed = 0  # control steps played and not yet learnt from, times schedule.updates
    for _ in range(-(-schedule.warmup // copies)):
        if stopping():
            return
        for actor in actors:
            actor.step()
    rounds = {"joint": _in_step, "random": _in_turn, "round_robin_episode": _by_episode}[schedule.games]
    for played, choose in rounds(actors, schedule.collect, stopping):
        owed += played * schedule.updates
        while owed >= schedule.collect:
            owed -= schedule.collect
            loss = learner.step(rectangle.draw(rng, choose(rng), learner.updates))
            rectangle.prioritise(loss)
            yield loss


def _in_step(actors: Sequence[Actor], collect: int, stopping: Callable[[], bool]) -> Iterator[tuple[int, Choose]]:
    """All tasks, one control step of every copy at a time: all memories stay equally old."""
    copies = max(a.env.num_envs for a in actors)
    rounds = max(1, collect // copies)
    while True:
        for _ in range(rounds):
            if stopping():
                return
            for actor in actors:
                actor.step()
        yield rounds * copies, lambda rng: None


def _in_turn(actors: Sequence[Actor], collect: int, stopping: Callable[[], bool]) -> Iterator[tuple[int, Choose]]:
    """The task that has played least plays a round; updates draw from a random task."""
    while True:
        actor = min(actors, key=lambda a: a.control_steps)
        rounds = max(1, collect // actor.env.num_envs)
        for _ in range(rounds):
            if stopping():
                return
            actor.step()
        yield rounds * actor.env.num_envs, lambda rng: [int(rng.integers(len(actors)))]


def _by_episode(actors: Sequence[Actor], collect: int, stopping: Callable[[], bool]) -> Iterator[tuple[int, Choose]]:
    """One task until one of its copies ends an episode, then the next; learnt from whenever a round is full."""
    while True:
        for g, actor in enumerate(actors):
            ended = actor.episodes
            while actor.episodes == ended:
                if stopping():
                    return
                actor.step()
                yield actor.env.num_envs, _always(g)


def _always(g: int) -> Choose:
    return lambda rng: [g]
