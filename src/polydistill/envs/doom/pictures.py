"""A picture of each task, for the guide: ``python -m polydistill.envs.doom.pictures docs/_static/doom``.

Left the view, right the floor plan: grey floor, blue start, red apple, green parcel, yellow goal or badge, brown door,
white pillar or block.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from polydistill.envs.doom import actors
from polydistill.envs.doom.actions import ACTIONS
from polydistill.envs.doom.game import Game
from polydistill.envs.doom.levels import SPECS, Plan, Spec

STEPS = 300  # control steps of random play that the view is chosen from
SEEDS = (1, 2, 3)  # episodes it is chosen from
COLOURS = 128  # in a picture
_DOT = 10  # pixels of a cell in the floor plan

_MARKS = {
    actors.PLAYER_START: (60, 110, 250),
    actors.DEATHMATCH_START: (60, 110, 250),
    actors.APPLE: (220, 50, 50),
    actors.PARCEL: (40, 170, 80),
    actors.GOAL: (245, 200, 30),
    actors.BADGE: (245, 200, 30),
    actors.DOOR_KEEPER: (140, 90, 40),
    actors.BASE: (255, 255, 255),
}


class _Filmed(Game):
    """A game that also says which things it shows."""

    def _engine(self, seed: int) -> Any:
        engine = super()._engine(seed)
        engine.set_labels_buffer_enabled(True)
        return engine

    def shown(self) -> int:
        """Pixels of the things in view, the nearest ones cut off so that none fills the picture."""
        return sum(min(label.width * label.height, 600) for label in self.engine.get_state().labels)


def floor_plan(plan: Plan, height: int) -> np.ndarray:
    """The level from above, uint8 ``[height, height, 3]``, north up."""
    sectors = plan.level.sectors
    image = np.full((*sectors.shape, 3), 40, dtype=np.uint8)
    image[sectors >= 0] = 170
    for i, sector in enumerate(plan.level.kinds):
        if sector.floor > 0:
            image[sectors == i] = 255
    dots = image.repeat(_DOT, 0).repeat(_DOT, 1)
    for thing in plan.level.things:
        if thing.kind in _MARKS:
            r, c = (_DOT * n for n in thing.cell)
            dots[r + 2 : r + _DOT - 2, c + 2 : c + _DOT - 2] = _MARKS[thing.kind]
    return np.asarray(Image.fromarray(dots).resize((height, height), Image.Resampling.NEAREST))


def picture(spec: Spec, seed: int) -> tuple[int, Image.Image]:
    """The view with the most things in it during some random play, beside the floor plan; and how much it shows."""
    rng = np.random.default_rng(seed)
    plan = spec.plan(rng)
    with TemporaryDirectory() as folder:
        game = _Filmed(spec, Path(folder))
        game.open(seed, plan)
        game.begin(seed, plan)
        best, view = -1, game.screen()
        for action in rng.integers(0, len(ACTIONS[spec.suite]), STEPS).tolist():
            if game.shown() > best:
                best, view = game.shown(), game.screen().copy()
            game.play(action)
        game.close()
    rgb = np.concatenate([view[..., 2::-1], floor_plan(plan, len(view))], axis=1)
    return best, Image.fromarray(np.ascontiguousarray(rgb)).quantize(COLOURS, dither=Image.Dither.NONE)


def main(folder: str) -> None:
    """Write one PNG per task into ``folder``."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, spec in SPECS.items():
        _, image = max((picture(spec, seed) for seed in SEEDS), key=lambda shot: shot[0])
        image.save(out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "docs/_static/doom")
