"""Making a bundle of starts: a policy plays whole episodes, and one position of each is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from polydistill.envs.base import EVALUATION_SEED_BASE
from polydistill.errors import UserError
from polydistill.evaluation.copies import Line, open_copies
from polydistill.evaluation.play import Greedy
from polydistill.evaluation.starts import RAM, WITHIN, Bundle, Origin, Start, digest, ram_digest, rom_of, versions
from polydistill.rng import stream
from polydistill.tasks import Task

#: Starts in a bundle unless told otherwise (Rusu et al. 2016).
COUNT = 100


@dataclass
class _Episode:
    actions: list[int]
    digests: list[str]  # of what is seen before each action
    score: float = 0.0


def make_bundle(
    task: Task,
    greedy: Greedy | None,
    *,
    policy: str,
    command: str,
    count: int = COUNT,
    epsilon: float = 0.05,
    seed: int = 0,
    card_score: float | None = None,
    num_envs: int = 10,
    threads: int = 0,
    on_episode: Callable[[int], None] = lambda done: None,
) -> Bundle:
    """Play ``count`` whole episodes and keep one position of each, drawn from the first 20 % of its control steps.

    The position is drawn uniformly from step 1 up to the last one within the first 20 % (step 0 where an episode is
    shorter than five steps). Every position is then played up to once more, under each observation profile, and must
    show what it showed before.

    Args:
        greedy: The policy; None plays uniformly at random.
        policy: What the bundle calls it; ``command`` and ``card_score`` are noted too.
        epsilon: Probability of a uniformly random action at each control step; noted as 1 where ``greedy`` is None.
        seed: Root of everything random. The environments' seeds made of it are for evaluation.
        num_envs: Copies that play together; they change the speed, never the starts.
        threads: Emulator threads, 0 for one per core.
        on_episode: Told after each episode how many have ended.

    Raises:
        UserError: the environment cannot be opened, has too many actions for a byte, or does not do the same again.
    """
    if task.n_actions > 256:
        raise UserError(f"task {task.name!r} has {task.n_actions} actions: a bundle of starts keeps one byte for each")
    rng = stream(seed, "starts", task.name)
    seeds = [EVALUATION_SEED_BASE + int(s) for s in rng.integers(2**40, size=count)]
    rngs = [stream(seed, "starts", task.name, k) for k in range(count)]
    epsilon = 1.0 if greedy is None else epsilon
    played = _play(task, greedy, seeds, rngs, epsilon, min(num_envs, count), threads, on_episode)
    starts = [_cut(task, s, e, r) for s, e, r in zip(seeds, played, rngs, strict=True)]
    origin = Origin(
        policy=policy,
        epsilon=epsilon,
        score=float(np.mean([e.score for e in played])),
        card_score=card_score,
        command=command,
        versions=versions(task.kind == "atari"),
    )
    hashes = _seen_again(task, starts, min(num_envs, count), threads)
    for k, start in enumerate(starts):
        if hashes[task.obs_profile][k] != start.hashes[task.obs_profile]:
            raise UserError(
                f"task {task.name!r} does not do the same again from one seed and the same actions (start {k}): "
                "positions in it cannot be kept"
            )
    done = tuple(replace(s, hashes={name: h[k] for name, h in hashes.items()}) for k, s in enumerate(starts))
    return Bundle(task.name, task.action_meanings, rom_of(task), origin, done, Path(policy))


def _play(
    task: Task,
    greedy: Greedy | None,
    seeds: Sequence[int],
    rngs: Sequence[np.random.Generator],
    epsilon: float,
    num_envs: int,
    threads: int,
    on_episode: Callable[[int], None],
) -> list[_Episode]:
    copies = open_copies(task, num_envs, threads=threads)
    try:
        line, ended = Line(copies, seeds), 0
        episodes = [_Episode([], []) for _ in seeds]
        while line.busy.any():
            busy, actions = line.busy, np.zeros(num_envs, dtype=np.int64)
            if greedy is not None:
                actions[busy] = greedy(line.obs[busy])
            for i in np.flatnonzero(busy):
                chance, choice = rngs[line.which[i]].random(2)
                if chance < epsilon:
                    actions[i] = int(choice * task.n_actions)
                episode = episodes[line.which[i]]
                episode.actions.append(int(actions[i]))
                episode.digests.append(digest(line.obs[i]))
            step = line.step(actions)
            for i in np.flatnonzero(busy):
                episodes[line.which[i]].score += float(step.reward[i])
            over = busy & step.ended
            for _ in range(int(over.sum())):
                ended += 1
                on_episode(ended)
            line.advance(over)
    finally:
        copies.close()
    return episodes


def _cut(task: Task, seed: int, episode: _Episode, rng: np.random.Generator) -> Start:
    whole = len(episode.actions)
    last = int(WITHIN * whole)
    at = int(rng.integers(1, last + 1)) if last else 0
    actions = np.array(episode.actions[:at], dtype=np.uint8)
    return Start(seed, actions, whole, {task.obs_profile: episode.digests[at]})


def _seen_again(task: Task, starts: Sequence[Start], num_envs: int, threads: int) -> dict[str, list[str]]:
    """Hashes at the hand-overs, of a second run: per observation profile, and of an Atari game's RAM."""
    if task.kind != "atari":
        return {task.obs_profile: _hand_overs(task, starts, num_envs, threads)}
    from polydistill.envs.atari import PROFILES

    seen = {p: _hand_overs(replace(task, obs_profile=p), starts, num_envs, threads) for p in PROFILES}
    return {**seen, RAM: [str(ram_digest(task, start)) for start in starts]}


def _hand_overs(task: Task, starts: Sequence[Start], num_envs: int, threads: int) -> list[str]:
    copies = open_copies(task, num_envs, threads=threads)
    try:
        line, found = Line(copies, [s.seed for s in starts]), [""] * len(starts)
        lengths = np.array([len(s.actions) for s in starts])
        while line.busy.any():
            for i in np.flatnonzero(there := line.busy & (line.age == lengths[line.which])):
                found[line.which[i]] = digest(line.obs[i])
            if there.any():
                line.advance(there)
                continue
            actions = np.zeros(num_envs, dtype=np.int64)
            for i in np.flatnonzero(line.busy):
                actions[i] = starts[line.which[i]].actions[line.age[i]]
            over = line.step(actions).ended & line.busy
            line.advance(over)
    finally:
        copies.close()
    return found
