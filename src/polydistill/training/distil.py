"""The loop: play, remember, draw, learn. Whoever iterates it decides when to stop, log, evaluate and save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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


@dataclass
class Progress:
    """Where a schedule stands: what a run that was cut needs to go on with the updates that it still owes.

    Attributes:
        warmed: Control steps of each task's warm-up that were played.
        played: Control steps of the round that has begun.
        owed: Control steps of finished rounds not yet learnt from, times ``Schedule.updates``.
        turn: The task that plays, where tasks take turns.
        over: Whether an episode of that task has ended, so that the next one follows.
        refill: Control steps of each task to play before anything else, into a memory that a cut left empty. They
            count for nothing.
    """

    warmed: int = 0
    played: int = 0
    owed: int = 0
    turn: int = 0
    over: bool = False
    refill: list[int] = field(default_factory=list)


def refill_steps(schedule: Schedule, capacity: int, control_steps: int) -> int:
    """Control steps that fill a task's memory again after a cut; at most what one round or the warm-up brings."""
    return min(capacity, control_steps, max(schedule.collect, schedule.warmup))


def distil(
    actors: Sequence[Actor],
    learner: Learner,
    rectangle: Rectangle,
    schedule: Schedule,
    rng: np.random.Generator,
    stopping: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Iterator[Loss]:
    """Endless: yields the loss of every update. ``stopping`` ends it between two control steps.

    Args:
        progress: Where to begin; kept up to date.
    """
    at = progress if progress is not None else Progress()
    copies = max(a.env.num_envs for a in actors)
    while any(steps > 0 for steps in at.refill):
        if stopping():
            return
        for g, actor in enumerate(actors):
            if at.refill[g] > 0:
                actor.step(counted=False)
                at.refill[g] -= actor.env.num_envs
    while at.warmed < schedule.warmup:
        if stopping():
            return
        for actor in actors:
            actor.step()
        at.warmed += copies
    play = {"joint": _in_step, "random": _in_turn, "round_robin_episode": _by_episode}[schedule.games]
    while True:
        while at.owed >= schedule.collect:
            at.owed -= schedule.collect
            loss = learner.step(rectangle.draw(rng, _chosen(schedule, len(actors), at, rng), learner.updates))
            rectangle.prioritise(loss)
            yield loss
        if not play(actors, schedule.collect, at, stopping):
            return
        at.owed += at.played * schedule.updates
        at.played = 0


def _chosen(schedule: Schedule, tasks: int, at: Progress, rng: np.random.Generator) -> Sequence[int] | None:
    """Which tasks the next update draws from; None: all."""
    if schedule.games == "joint":
        return None
    return [int(rng.integers(tasks)) if schedule.games == "random" else at.turn]


def _in_step(actors: Sequence[Actor], collect: int, at: Progress, stopping: Callable[[], bool]) -> bool:
    """A round of all tasks, one control step of every copy at a time: all memories stay equally old.

    As the other two: False if it was stopped before its end.
    """
    copies = max(a.env.num_envs for a in actors)
    rounds = max(1, collect // copies)
    while at.played < rounds * copies:
        if stopping():
            return False
        for actor in actors:
            actor.step()
        at.played += copies
    return True


def _in_turn(actors: Sequence[Actor], collect: int, at: Progress, stopping: Callable[[], bool]) -> bool:
    """A round of the task that has played least."""
    if not at.played:
        at.turn = min(range(len(actors)), key=lambda g: actors[g].control_steps)
    actor = actors[at.turn]
    copies = actor.env.num_envs
    while at.played < max(1, collect // copies) * copies:
        if stopping():
            return False
        actor.step()
        at.played += copies
    return True


def _by_episode(actors: Sequence[Actor], collect: int, at: Progress, stopping: Callable[[], bool]) -> bool:
    """One control step of one task, until one of its copies ends an episode; then of the next."""
    if at.over:
        at.turn, at.over = (at.turn + 1) % len(actors), False
    if stopping():
        return False
    actor = actors[at.turn]
    ended = actor.episodes
    actor.step()
    at.played, at.over = actor.env.num_envs, actor.episodes > ended
    return True
