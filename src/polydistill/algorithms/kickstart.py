"""Help for a value learner that does not begin at nothing: kickstarting, and a last layer that learns first.

Kickstarting (Schmitt et al. 2018, "Kickstarting Deep Reinforcement Learning") adds a distillation term to the learner's
own loss and lets it decay. Their learner has a policy; ours has values, so the term is about softmax(Q / tau). The
learner's own loss may grow meanwhile, which is not theirs.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from polydistill.ops.policy import distill_kl
from polydistill.settings import Settings


class Assistance(Protocol):
    """What a learner asks at each update."""

    def begin(self, updates: int) -> None:
        """Called before the update that follows ``updates`` others."""

    def term(self, steps: int, obs: Tensor, q: Tensor) -> Tensor | None:
        """To be added to the loss, a scalar; None: nothing.

        Args:
            steps: The learner's control steps so far, without those that only filled a memory again after a cut.
            obs: The minibatch, ``[B, *obs_shape]``.
            q: What the learner says of it, ``[B, n_actions]``, with its gradient.
        """

    def share(self, steps: int) -> float:
        """What the learner's own loss is multiplied by, in [0, 1]; ``steps`` as there."""


def helped(assist: Assistance | None, loss: Tensor, steps: int, obs: Tensor, q: Tensor) -> Tensor:
    """A learner's loss as the help has it: its share, and the term added; unchanged without help.

    Args:
        steps, obs, q: As for :meth:`Assistance.term`.
    """
    if assist is None:
        return loss
    loss, term = assist.share(steps) * loss, assist.term(steps, obs, q)
    return loss if term is None else loss + term


class KickstartSettings(Settings):
    """A teacher that helps in the beginning.

    Attributes:
        teacher: Folder of a teacher of the task, or of a student that has all its actions.
        weight: Of the term in the beginning. The term's gradient in each value is at most ``weight``, as that of the
            clipped error of DQN is at most 1.
        steps: Control steps after which the weight is exactly 0; until then it falls linearly. They are counted from
            the learner's first update on.
        temperature: Divides the teacher's Q-values; a teacher with logits has 1.
        learner_temperature: Divides the learner's. Action gaps of a few times this are enough to obey the teacher:
            0.01 is the size of gaps in Atari, so that the term hardly moves what the values are.
        rl_start: Share of the learner's own loss in the beginning; it rises linearly and is exactly 1 where the weight
            is 0. 1 throughout is Schmitt et al.'s.
    """

    teacher: str
    weight: float = Field(1.0, ge=0)
    steps: int = Field(100_000, ge=0)
    temperature: float = Field(0.01, gt=0)
    learner_temperature: float = Field(0.01, gt=0)
    rl_start: float = Field(1.0, ge=0, le=1)

    def at(self, steps: int) -> float:
        """Weight ``steps`` control steps after the first update; exactly 0.0 from ``self.steps`` on."""
        return self.weight * (1 - steps / self.steps) if steps < self.steps else 0.0

    def rl_at(self, steps: int) -> float:
        """Share of the learner's own loss then; exactly 1.0 from ``self.steps`` on."""
        return self.rl_start + (1 - self.rl_start) * steps / self.steps if steps < self.steps else 1.0


class Kickstart:
    """weight * tau KL(softmax(Q_teacher / tau_teacher) || softmax(Q / tau)), averaged over the minibatch.

    Its gradient in Q is weight * (softmax(Q / tau) - softmax(Q_teacher / tau_teacher)): the factor tau keeps it of the
    size of the weight. Once the weight is 0 the teacher is no longer asked.

    Args:
        net: The teacher's, ``[B, *obs_shape] -> [B, n_actions]``; frozen.
        values: Whether it gives Q-values; else logits.
        first: Control steps before the learner's first update.
    """

    def __init__(self, settings: KickstartSettings, net: nn.Module, values: bool, first: int = 0):
        self.s, self.net, self.first = settings, net, first
        self.tau = settings.temperature if values else 1.0

    def begin(self, updates: int) -> None:
        """Nothing to do."""

    def term(self, steps: int, obs: Tensor, q: Tensor) -> Tensor | None:
        """See :class:`Assistance`."""
        weight = self.s.at(max(0, steps - self.first))
        if weight == 0:
            return None
        with torch.no_grad():
            told = self.net(obs).float()
        own = self.s.learner_temperature
        return weight * own * distill_kl(told, q / own, self.tau).mean()

    def share(self, steps: int) -> float:
        """See :class:`Assistance`."""
        return self.s.rl_at(max(0, steps - self.first))


class Warmup:
    """For its first updates only the last layer of a network learns.

    The errors of a last layer that is new, or whose level is not that of the values, would else go into layers that are
    good already.

    Args:
        net: The network.
        layer: Name of its last layer.
        updates: So many; 0 is none.
    """

    def __init__(self, net: nn.Module, layer: str, updates: int):
        self.updates = updates
        self._body = [p for name, p in net.named_parameters() if not name.startswith(f"{layer}.")]

    def begin(self, updates: int) -> None:
        """Hold the layers below the last one, or let go of them."""
        for p in self._body:
            p.requires_grad_(updates >= self.updates)

    def term(self, steps: int, obs: Tensor, q: Tensor) -> Tensor | None:
        """Nothing."""
        return None

    def share(self, steps: int) -> float:
        """All of it."""
        return 1.0


class Together:
    """Several kinds of help at once."""

    def __init__(self, *parts: Assistance):
        self.parts = parts

    def begin(self, updates: int) -> None:
        """Each of them."""
        for part in self.parts:
            part.begin(updates)

    def term(self, steps: int, obs: Tensor, q: Tensor) -> Tensor | None:
        """The sum of what they add."""
        terms = [t for part in self.parts if (t := part.term(steps, obs, q)) is not None]
        return torch.stack(terms).sum() if terms else None

    def share(self, steps: int) -> float:
        """The product of theirs."""
        return math.prod(part.share(steps) for part in self.parts)
