"""The networks of Distral's agents, all tasks together: what is trained, saved and played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from polydistill.algorithms.distral import DISCRETE, GAUSSIAN, Agent, Family
from polydistill.nets.columns import Column, ColumnOutput, Memory, policy_size
from polydistill.tasks import Task


class Networks(nn.Module):
    """The columns of an agent: ``own``, one per task or none, and ``shared``, or None."""

    def __init__(self, agent: Agent, tasks: Sequence[Task], hidden: int = 256, lstm: int = 256):
        super().__init__()
        self.agent, self.family = agent, GAUSSIAN if tasks[0].continuous else DISCRETE
        outputs = policy_size(tasks[0])
        self.shared = Column(tasks[0], outputs, hidden, lstm) if agent.has_h else None
        self.own = nn.ModuleList(Column(t, outputs, hidden, lstm) for t in tasks) if agent.own else None

    def empty(self, n: int) -> Remembered:
        """What ``n`` episodes remember in the beginning, for one task."""
        some = self.shared if self.shared is not None else self._own(0)
        return Remembered(some.empty(n), some.empty(n))

    def _own(self, task: int) -> Column:
        assert self.own is not None
        column = self.own[task]
        assert isinstance(column, Column)
        return column

    def look(self, task: int, obs: Tensor, start: Tensor, memory: Remembered) -> Look:
        """What the columns make of ``[T, N, *obs_shape]``; ``start`` as in :class:`Column`."""
        shared = None if self.shared is None else self.shared(obs, start, memory.shared)
        own = None if self.own is None else self._own(task)(obs, start, memory.own)
        return Look(self.agent, self.family, shared, own, memory)


@dataclass(frozen=True)
class Remembered:
    """Memory of both columns for the copies of one task."""

    shared: Memory
    own: Memory


@dataclass(frozen=True)
class Look:
    """Outputs of both columns."""

    agent: Agent
    family: Family
    shared: ColumnOutput | None
    own: ColumnOutput | None
    before: Remembered

    @property
    def policy(self) -> Tensor:
        """The task's policy: logits ``[T, N, A]``, or ``[T, N, 2, D]``."""
        h, f = (None if column is None else column.logits for column in (self.shared, self.own))
        return self.agent.logits(h, f, self.family)

    @property
    def value(self) -> Tensor:
        """The task's value function, ``[T, N]``: its own network's, else the shared one's."""
        chosen = self.own if self.own is not None else self.shared
        assert chosen is not None
        return chosen.value

    @property
    def memory(self) -> Remembered:
        return Remembered(
            self.before.shared if self.shared is None else self.shared.memory,
            self.before.own if self.own is None else self.own.memory,
        )
