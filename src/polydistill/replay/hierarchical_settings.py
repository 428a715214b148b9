"""The questions that Yin & Pan (2017) leave open about their replay, each with what may be answered."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from polydistill.replay.priorities import Insertion
from polydistill.settings import Settings


class HierarchicalSettings(Settings):
    """What :func:`make` takes.

    Attributes:
        partitions: p; each has its own first-in first-out queue.
        eviction: Who leaves when there is no room. ``partition``: each queue holds capacity // p and gives away its own
            oldest; states that are seldom visited stay long, and once every queue is full each partition is drawn as
            often as any other. ``oldest``: the queues share the capacity and the oldest of all leaves, as in a uniform
            memory, so the partitions go on being drawn as often as they are visited.
        alpha: Exponent of the law of ranks; 0 draws every experience equally often, whatever p.
        value_range: V_min and V_max, as measured by playing the teacher. None: the range of what was put so far, which
            grows as with ``out_of_range: expand``.
        out_of_range: A value outside the range goes to the nearest partition (``clamp``); or is not stored (``drop``);
            or the range grows, and everything stored goes into its new partition (``expand``).
        partition_counts: N_j of P_j = N_j / sum N: what partition j holds (``memory``), or how many of the last
            ``window`` experiences put belong to it (``window``). A partition that holds nothing has probability 0.
        window: Its length, in experiences.
        insertion: First priority of an experience (``polydistill.replay.priorities.Insertion``).
        draw_partition: A partition is drawn for each ``sample``, or one for the whole ``minibatch``.
        staleness: How much may be drawn at once (``polydistill.replay.ranked_queues.RankedQueues``), as a share of what
            is stored: below 64,000 experiences and 32 draws a minibatch, nothing is late with 0.001. 0: nothing ever.
    """

    partitions: int = Field(ge=1)
    alpha: float = Field(ge=0)
    value_range: tuple[float, float] | None
    out_of_range: Literal["clamp", "drop", "expand"]
    partition_counts: Literal["memory", "window"]
    window: int = Field(ge=1)
    insertion: Insertion
    staleness: float = Field(ge=0, lt=1)
    draw_partition: Literal["sample", "minibatch"]
    eviction: Literal["partition", "oldest"]

    @field_validator("value_range")
    @classmethod
    def _has_width(cls, value_range: tuple[float, float] | None) -> tuple[float, float] | None:
        if value_range is None:
            return None
        low, high = value_range
        if low > high:
            raise ValueError("two numbers, the smaller first, are expected")
        if low == high:
            raise ValueError(
                "V_min equals V_max: the teacher gave every state the same value, so there is nothing to partition; "
                "take the sampler 'ranked', or check the teacher"
            )
        return value_range

    @property
    def grows(self) -> bool:
        """Whether the partitions may change."""
        return self.partitions > 1 and (self.value_range is None or self.out_of_range == "expand")

    def each(self, capacity: int) -> int:
        """Experiences that a partition of a memory of ``capacity`` holds at most."""
        return capacity if self.eviction == "oldest" else capacity // self.partitions
