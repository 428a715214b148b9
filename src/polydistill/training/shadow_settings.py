"""How a student follows a learner."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from polydistill.settings import Settings


class ShadowSettings(Settings):
    """Settings of online distillation.

    Attributes:
        student: ``net1``, ``net2``, ``net3``, or a network's own name.
        options: The network's own settings, e.g. ``hidden``.
        loss, temperature: The temperature divides the teacher's Q-values. PD does not say which loss it used online.
        learning_rate, max_learning_rate: RMSProp's; together they fix its eps = (lr / max lr)^2. PD, App. A: 1e-4 to
            1e-3, and 1e-3 to 1e-1. The upper end of the latter, for with 1e-2 and less net1 had learnt nothing of the
            shipped Pong teacher after 4,000 updates.
        batch_size: States per update.
        update_period: Control steps seen (all copies together) per update; PD, not online: 5.4.
        learning_starts: Observations in the memory before the first update; counted from 0 again after a flush and
            after a resume, when the memory is empty.
        capacity, size: The memory keeps at most so many observations (PD: 540,000), and at most so many bytes of them.
        on_swap: When a better teacher replaces one, what was seen is kept, or the memory starts empty.
        seeds: One student for each, all following the same teacher; none: one student with the run's seed.
    """

    student: str
    options: dict[str, Any] = Field(default_factory=dict)
    loss: Literal["kl", "nll", "mse", "reverse_kl", "js", "huber"] = "kl"
    temperature: float = Field(0.01, gt=0)
    learning_rate: float = Field(5e-4, gt=0)
    max_learning_rate: float = Field(0.1, gt=0)
    batch_size: int = Field(32, ge=1)
    update_period: int = Field(16, ge=1)
    learning_starts: int = Field(5_000, ge=1)
    capacity: int = Field(540_000, ge=1)
    size: str = "1GB"
    on_swap: Literal["keep", "flush"] = "keep"
    seeds: tuple[int, ...] = ()

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or any(s < 0 for s in seeds):
            raise ValueError("seeds are different and not negative")
        return seeds
