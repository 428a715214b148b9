"""Fixed evaluation protocols: a task and a policy in, rows out. No algorithm is known here.

| name | sticky actions | start | epsilon | cap | who uses it |
|---|---|---|---|---|---|
| ``noop`` | 0 | 1-30 no-ops | 0.05 | 108,000 frames | Mnih et al. 2015; Parisotto et al. 2016; Yin & Pan 2017 |
| ``sticky`` | 0.25 | the same | 0.05 | 108,000 frames | Machado et al. 2018 for the sticky actions |
| ``starts`` | 0 | a bundle of positions | 0.05 | 108,000 frames from there on | Rusu et al. 2016, but for the human |

No-ops and the cap of 30 minutes belong to Atari; other tasks have their own starts and ends. Rusu et al. 2016 evaluate
from 100 human positions, which are not public; :mod:`~polydistill.evaluation.starts` stands in for them. Each is played
once, and points and steps count from there on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_validator

from polydistill.envs.atari import FRAME_SKIP
from polydistill.envs.base import EVALUATION_SEED_BASE, MAX_FRAMES
from polydistill.envs.suite import make_env
from polydistill.evaluation.copies import open_copies
from polydistill.evaluation.play import Episode, Greedy, play, play_starts
from polydistill.evaluation.rows import Label, Row
from polydistill.evaluation.start_files import find
from polydistill.settings import Settings
from polydistill.tasks import Task

#: Episodes per task unless told otherwise (Mnih et al. 2015).
EPISODES = 30

__all__ = ["EPISODES", "EVALUATION_SEED_BASE", "RULES", "Name", "Protocol", "Rules", "evaluate_task", "require_starts"]

Name = Literal["noop", "sticky", "starts"]


@dataclass(frozen=True)
class Rules:
    """What a protocol's name fixes, so that two scores under one name compare.

    Attributes:
        sticky: Probability that the emulator repeats the previous action.
        noop_max: Largest number of no-ops at a start, in frames.
        epsilon: Probability of a uniformly random action at each control step.
        max_frames: Emulator frames in one episode at most; 108,000 = 30 minutes = 27,000 control steps. Under
            ``starts`` those after the hand-over.
    """

    sticky: float = 0.0
    noop_max: int = 30
    epsilon: float = 0.05
    max_frames: int = MAX_FRAMES


RULES: Mapping[Name, Rules] = MappingProxyType(
    {"noop": Rules(), "sticky": Rules(sticky=0.25), "starts": Rules(noop_max=0)}
)


class Protocol(Settings):
    """How scores are measured. ``Protocol()`` is 30 episodes from no-op starts.

    Attributes:
        name: The rules: ``noop``, ``sticky`` or ``starts``.
        episodes: Full episodes per task; 30 when neither this nor ``steps`` is set. Under ``starts`` the first so many
            of the bundle; all of them when it is not set.
        steps: Control steps per task instead, over all copies; see :func:`~polydistill.evaluation.play.play`. Not under
            ``starts``.
        starts: Bundle of ``starts``, or a folder of them; None for those that come with the package.
        num_envs: Copies that play together, never more than there are episodes.
        seed: Root of starts and random actions, the same for every policy, so that student and teacher meet the same
            starts. At least :data:`EVALUATION_SEED_BASE`.
    """

    name: Name = "noop"
    episodes: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    starts: str | None = None
    num_envs: int = Field(default=10, ge=1)
    seed: int = Field(default=EVALUATION_SEED_BASE, ge=EVALUATION_SEED_BASE)

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        episodes, steps = values.get("episodes"), values.get("steps")
        if episodes is not None and steps is not None:
            raise ValueError("give either episodes or steps, not both")
        if values.get("name", "noop") == "starts":
            if steps is not None:
                raise ValueError("protocol starts plays each start once: give episodes, not steps")
            return values
        if values.get("starts") is not None:
            raise ValueError("a bundle of starts goes with protocol starts")
        return values if steps is not None else {**values, "episodes": EPISODES if episodes is None else episodes}

    @property
    def rules(self) -> Rules:
        return RULES[self.name]

    @property
    def copies(self) -> int:
        """Copies of the environment that are really opened."""
        return self.num_envs if self.episodes is None else min(self.num_envs, self.episodes)

    def describe(self) -> dict[str, Any]:
        """Everything that fixes the scores, for ``summary.json``: the settings and the rules behind the name."""
        foreign = {"noop_max"} if self.name == "starts" else {"starts"}
        return {k: v for k, v in {**self.model_dump(), **asdict(self.rules)}.items() if k not in foreign}


def require_starts(tasks: Iterable[Task], protocol: Protocol) -> None:
    """Before anything is played: there is a good bundle for every task, if the protocol wants one.

    Raises:
        UserError: see :func:`~polydistill.evaluation.start_files.find`.
    """
    for task in tasks if protocol.name == "starts" else ():
        find(task, protocol.starts, protocol.episodes)


def evaluate_task(
    task: Task, greedy: Greedy | None, protocol: Protocol, *, threads: int = 0, label: Label | None = None
) -> list[Row]:
    """Play ``task`` under ``protocol`` and return one row per episode.

    Rows are ordered by copy, then by episode (under ``starts`` by start), whatever the order in which the episodes
    ended, and carry no teacher's score yet: :func:`~polydistill.evaluation.rows.with_teacher` adds it.

    Args:
        greedy: Observations ``[n, *obs_shape]`` to greedy actions ``[n]``; None plays at random.
        threads: Emulator threads, 0 for one per core. They change the speed, never the scores.
        label: Whose rows these are; a nameless student without updates if not told.

    Raises:
        UserError: the environment cannot be opened, or has no sticky actions though the protocol wants them; there is
            no good bundle of starts, or one of its starts is not reached again.
    """
    label = label or Label()
    play_it = _from_starts if protocol.name == "starts" else _from_the_beginning
    played = play_it(task, greedy, protocol, threads)
    return [
        Row(
            variant=label.variant,
            task=task.name,
            seed=label.seed,
            updates=label.updates,
            control_steps=label.control_steps,
            protocol=protocol.name,
            episode=i,
            steps=episode.steps,
            score=episode.score,
        )
        for i, episode in enumerate(played)
    ]


def _from_the_beginning(task: Task, greedy: Greedy | None, protocol: Protocol, threads: int) -> list[Episode]:
    rules = protocol.rules
    env = make_env(
        task,
        protocol.copies,
        sticky=rules.sticky,
        threads=threads,
        noop_max=rules.noop_max,
        max_frames=rules.max_frames,
    )
    try:
        played = play(
            env, greedy, episodes=protocol.episodes, steps=protocol.steps, epsilon=rules.epsilon, seed=protocol.seed
        )
        return sorted(played, key=lambda e: (e.copy, e.number))
    finally:
        env.close()


def _from_starts(task: Task, greedy: Greedy | None, protocol: Protocol, threads: int) -> list[Episode]:
    """The agent has 30 minutes from the hand-over on, so the environment's own cap moves back by the longest log."""
    rules, bundle = protocol.rules, find(task, protocol.starts, protocol.episodes)
    episodes = protocol.episodes or len(bundle.starts)
    longest = max(len(s.actions) for s in bundle.starts)
    copies = open_copies(
        task,
        min(protocol.num_envs, episodes),
        threads=threads,
        max_frames=rules.max_frames + FRAME_SKIP * longest,
    )
    try:
        played = play_starts(
            copies,
            greedy,
            bundle,
            episodes=episodes,
            epsilon=rules.epsilon,
            seed=protocol.seed,
            max_steps=-(-rules.max_frames // FRAME_SKIP) if task.kind == "atari" else None,
        )
        return sorted(played, key=lambda e: e.number)
    finally:
        copies.close()
