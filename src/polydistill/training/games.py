"""One of several trainings that run at once, as its files tell, and the table a person sees of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from polydistill.errors import UserError
from polydistill.evaluation.plain import number
from polydistill.teachers.zoo import CARD
from polydistill.training.beginning import CHECKPOINT
from polydistill.training.folder import ALONE, LOCK
from polydistill.training.progress import duration
from polydistill.training.teach import CURVE

State = Literal["waiting", "training", "finished", "stopped", "failed"]

RATE_HOURS = 5 / 60  # control steps per second are those of the last five minutes


@dataclass
class Game:
    """One teacher, as the table shows it.

    Attributes:
        total: Control steps of the whole training.
        rate: Control steps per second in the last five minutes.
        alone: Those of the game when nobody learns; 0: not known yet.
        recipe: Which one is wanted; None: whatever is there is right.
        asked: The user says how long: a finished teacher without a checkpoint, too, is trained further if it took less.
        last, best: Newest and best evaluation while it was trained.
        score: Of a finished teacher, the mean on its card.
        error: What the process said last, where it failed.
    """

    task: str
    folder: Path
    total: int
    recipe: str | None = None
    asked: bool = False
    state: State = "waiting"
    steps: int = 0
    rate: float = 0.0
    alone: float = 0.0
    last: float | None = None
    best: float | None = None
    score: float | None = None
    error: str = ""

    @property
    def left(self) -> float:
        """Seconds until the end at the present rate."""
        return (self.total - self.steps) / self.rate if self.rate else float("inf")

    def read(self) -> None:
        """Take what its files say now; what is not there, or half-written, changes nothing."""
        try:
            with (self.folder / CURVE).open(newline="") as file:
                rows = list(csv.DictReader(file))
            points = [(int(row["control_steps"]), float(row["hours"])) for row in rows]
            scores = [float(row["evaluation"]) for row in rows if row["evaluation"]]
        except (OSError, KeyError, TypeError, ValueError):
            points, scores = [], []
        if points:
            self.steps, hours = points[-1]
            then = next(point for point in points if hours - point[1] <= RATE_HOURS)
            self.rate = (self.steps - then[0]) / (3600 * (hours - then[1])) if hours > then[1] else self.rate
        self.alone = _alone(self.folder) or self.alone
        if scores:
            self.last, self.best = scores[-1], max(scores)
        if self.state == "finished" and (card := _card(self.folder)):
            self.steps, self.score = card["control_steps"], card["scores"]["noop"]["mean"]

    def begin(self, *, overwrite: bool) -> list[str] | None:
        """The flag its process needs to go on from what is there; None: there is nothing left to do.

        Raises:
            UserError: a finished teacher of another recipe is there.
        """
        held = self.folder.is_dir() and any(path.name != LOCK for path in self.folder.iterdir())
        if overwrite and held:
            return ["--overwrite"]
        card, begun = _card(self.folder), (self.folder / CHECKPOINT).is_dir()
        if card and self.recipe is not None and card.get("recipe") != self.recipe:
            raise UserError(
                f"{self.folder} holds a teacher trained with the recipe {card.get('recipe')}, not {self.recipe}: "
                "--overwrite replaces it, or choose another --out"
            )
        if card and (card["control_steps"] >= self.total or not (begun or self.asked)):
            return None
        self.steps = card["control_steps"] if card else 0
        return ["--resume"] if held else []


def _alone(folder: Path) -> float:
    """Control steps per second of the game alone, as its process measured them; 0 if it has not yet."""
    try:
        return float(json.loads((folder / "run.json").read_text()).get(ALONE, 0))
    except (OSError, ValueError, TypeError, AttributeError):
        return 0.0


def _card(folder: Path) -> dict[str, Any] | None:
    """The card of a teacher whose score was measured."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        float(card["scores"]["noop"]["mean"])
        return card if isinstance(card["control_steps"], int) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def table(games: Sequence[Game]) -> Table:
    """What a person sees; it fits 80 columns."""
    told = "share: of the control steps per second that the game alone reaches" if any(g.alone for g in games) else None
    drawn = Table(box=None, pad_edge=False, collapse_padding=True, caption=told, caption_justify="left")
    drawn.add_column("game")
    drawn.add_column("state")
    for name in ("control steps", "steps/s", "share", "last", "best", "score", "left"):
        drawn.add_column(name, justify="right")
    for game in games:
        active = game.state == "training"
        drawn.add_row(
            game.task,
            game.state,
            _steps(game),
            f"{game.rate:,.0f}" if active and game.rate else "",
            f"{game.rate / game.alone:.0%}" if active and game.rate and game.alone else "",
            *("" if score is None else number(score) for score in (game.last, game.best, game.score)),
            duration(game.left) if active else "",
        )
    return drawn


def _steps(game: Game) -> str:
    """How far it is, of how much."""
    millions = game.total >= 1_000_000
    steps, total = (f"{n / 1e6:.2f}" if millions else f"{n:,}" for n in (game.steps, game.total))
    return f"{steps}{'' if game.state == 'finished' else f'/{total}'}{' M' if millions else ''}"
