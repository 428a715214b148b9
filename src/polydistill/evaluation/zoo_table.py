"""The table of the teachers in a zoo, from their cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from polydistill.errors import UserError
from polydistill.evaluation.markdown import escape, number, row


def zoo_table(cards: Sequence[Path]) -> str:
    """The Markdown table of shipped teachers, from their cards: score, interval, random policy, what training took.

    Raises:
        UserError: a card is damaged or has no score yet.
    """
    lines = [
        row(["teacher", "score", "95 % interval", "random", "recipe", "control steps", "hours"]),
        row(["---", "---:", "---:", "---:", "---", "---:", "---:"]),
    ]
    for path in cards:
        try:
            card = json.loads(path.read_text())
            noop, random = card["scores"]["noop"], card["scores"]["random"]
            took = [str(card["recipe"]), f"{card['control_steps']:,}", f"{card['hours']:.1f}"]
            interval = f"{number(noop['low'])} to {number(noop['high'])}"
            lines.append(row([escape(path.parent.name), number(noop["mean"]), interval, number(random), *took]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the card of a finished teacher ({error!r})") from None
    note = (
        f"Full games from no-op starts, epsilon 0.05, {noop['episodes']} episodes each, played from the shipped file."
    )
    return "\n".join([*lines, "", note])
