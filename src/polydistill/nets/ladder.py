"""Sizes of one network between a teacher's parameters and next to none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from polydistill import nets
from polydistill.errors import UserError
from polydistill.nets.sizes import KIND, SIZES
from polydistill.nets.student import count
from polydistill.plugins import nearest
from polydistill.tasks import Suite

#: % of the teachers' parameters, and named networks (Rusu et al. 2016: 25 %, 7 % and 4 %).
LADDER = ("50", "net1", "12", "net2", "net3", "2", "1")

CHANNELS, HIDDEN = (32, 64, 64), 512  # the whole width: the DQN's (Mnih et al. 2015)


@dataclass(frozen=True)
class Size:
    """A student of the ladder: its name, the options of the network ``mimic``, its parameters."""

    name: str
    options: dict[str, Any]
    parameters: int


def ladder(suite: Suite, teacher_parameters: int, sizes: Sequence[str] = ()) -> list[Size]:
    """Sizes as networks, the largest first; those of equal parameters once.

    Args:
        teacher_parameters: Of all teachers together.
        sizes: Percentages of those (``"12"`` or ``"12%"``) and names (``net1`` .. ``net3``); empty: :data:`LADDER`,
            without what is not below the teachers or cannot be made that small.

    Raises:
        UserError: neither a percentage nor a name, or a percentage that no width gives.
    """
    found: dict[int, Size] = {}
    for name in sizes or LADDER:
        if name in SIZES:
            size = _named(name, dict(SIZES[name]), suite)
        else:
            share = _percentage(name)
            size = _closest(f"{share:g}pct", round(share / 100 * teacher_parameters), suite)
            wrong = 100 * size.parameters / teacher_parameters
            if not 0.75 * share <= wrong <= 1.25 * share:
                if sizes:
                    raise UserError(f"--sizes {name}: the network of these tasks comes no closer than {wrong:.1f} %")
                continue
        if sizes or size.parameters < teacher_parameters:
            found.setdefault(size.parameters, size)
    if not found:
        raise UserError(f"the teachers have {teacher_parameters:,} parameters, fewer than any student: name --sizes")
    return [found[n] for n in sorted(found, reverse=True)]


def _percentage(text: str) -> float:
    try:
        share = float(text.removesuffix("%").removesuffix("pct"))
    except ValueError:
        share = 0.0
    if not 0 < share <= 100:
        known = nearest(text, SIZES)
        raise UserError(f"--sizes {text}: write a percentage of the teacher's parameters or a name; {known}")
    return share


def _named(name: str, options: dict[str, Any], suite: Suite) -> Size:
    with torch.device("meta"):  # shapes without memory
        return Size(name, options, count(nets.make(KIND, suite, **options)))


def _closest(name: str, parameters: int, suite: Suite) -> Size:
    """The width whose network has the number of parameters that is closest."""

    def of_width(hidden: int) -> Size:
        channels = [max(1, round(c * hidden / HIDDEN)) for c in CHANNELS]
        return _named(name, {"channels": channels, "hidden": hidden}, suite)

    low, high = 1, 2 * HIDDEN * max(1, len(suite))
    while low < high:  # the smallest width with at least so many
        middle = (low + high) // 2
        low, high = (low, middle) if of_width(middle).parameters >= parameters else (middle + 1, high)
    return min((of_width(max(1, w)) for w in (low - 1, low)), key=lambda s: abs(s.parameters - parameters))
