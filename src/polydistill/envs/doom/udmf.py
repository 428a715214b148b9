"""A level as UDMF text ("Universal Doom Map Format" 1.1, namespace "zdoom"): cells of 128 map units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from polydistill.envs.doom.grids import Cell

CELL = 128  # map units; a player is 32 wide and 56 high
HEIGHT = 128  # map units from floor to ceiling

#: Edges of a cell in the order east, south, west, north: (row, column) of the neighbour, then both ends of the edge in
#: cells from the north-west corner. Walking from the first end to the second one, the cell lies to the right.
_EDGES = (
    ((0, 1), (1, 0), (1, 1)),
    ((1, 0), (1, 1), (0, 1)),
    ((0, -1), (0, 1), (0, 0)),
    ((-1, 0), (0, 0), (1, 0)),
)


@dataclass(frozen=True)
class Sector:
    """Heights in map units, textures by their names in the WAD, light 0 to 255, and the tag that a door answers to."""

    floor: int = 0
    ceiling: int = HEIGHT
    flat: str = "FLOOR4_8"
    sky: str = "CEIL5_1"
    light: int = 255
    tag: int = 0


@dataclass(frozen=True)
class Thing:
    """Something in the middle of a cell: its editor number, angle in degrees (0 = east, 90 = north), thing id, args."""

    kind: int
    cell: Cell
    angle: int = 0
    tid: int = 0
    args: tuple[int, ...] = ()


@dataclass(frozen=True)
class Level:
    """What a map holds.

    Attributes:
        sectors: int ``[rows, columns]``, index of the cell's sector; -1 is wall. The border is wall.
        kinds: The sectors.
        walls: Wall textures; a wall's is chosen by the quarter of the map it stands in.
        step: Texture where floors or ceilings of two sectors differ: a door's front, a platform's side.
        things: What stands in it, the player's start included.
    """

    sectors: np.ndarray
    kinds: tuple[Sector, ...]
    walls: tuple[str, ...]
    step: str
    things: tuple[Thing, ...]


def centre(cell: Cell) -> tuple[float, float]:
    """Map coordinates ``(x, y)`` of a cell's middle; rows go south, which is towards smaller ``y``."""
    return (cell[1] + 0.5) * CELL, -(cell[0] + 0.5) * CELL


def textmap(level: Level) -> str:
    """The level as the text of a TEXTMAP lump.

    Raises:
        ValueError: a border that is not wall.
    """
    grid = level.sectors
    if max(grid[0].max(), grid[-1].max(), grid[:, 0].max(), grid[:, -1].max()) >= 0:
        raise ValueError("the border of a level has to be wall")
    vertices: dict[tuple[int, int], int] = {}
    lines: list[str] = []
    sides: list[str] = []

    def vertex(x: int, y: int) -> int:
        return vertices.setdefault((x * CELL, -y * CELL), len(vertices))

    def side(sector: int, **textures: str) -> int:
        sides.append(_block("sidedef", {"sector": sector, **textures}))
        return len(sides) - 1

    for r, c in zip(*np.nonzero(grid >= 0), strict=True):
        here = int(grid[r, c])
        for (dr, dc), (x1, y1), (x2, y2) in _EDGES:
            there = int(grid[r + dr, c + dc])
            if there == here or 0 <= there < here:
                continue  # one room, or drawn already from the other side
            line: dict[str, object] = {"v1": vertex(c + x1, r + y1), "v2": vertex(c + x2, r + y2)}
            if there < 0:
                line |= {"sidefront": side(here, texturemiddle=_wall(level, int(r), int(c))), "blocking": True}
            else:
                edge = {"texturetop": level.step, "texturebottom": level.step}
                line |= {"sidefront": side(here, **edge), "sideback": side(there, **edge), "twosided": True}
            lines.append(_block("linedef", line))
    points = [_block("vertex", {"x": float(x), "y": float(y)}) for x, y in vertices]
    sectors = [_block("sector", _sector(kind)) for kind in level.kinds]
    return "\n".join(['namespace = "zdoom";', *_things(level.things), *points, *lines, *sides, *sectors, ""])


def _wall(level: Level, row: int, column: int) -> str:
    rows, columns = level.sectors.shape
    quarter = 2 * (2 * row >= rows) + (2 * column >= columns)
    return level.walls[quarter % len(level.walls)]


def _sector(kind: Sector) -> dict[str, object]:
    fields: dict[str, object] = {"heightfloor": kind.floor, "heightceiling": kind.ceiling, "lightlevel": kind.light}
    fields |= {"texturefloor": kind.flat, "textureceiling": kind.sky}
    return fields | ({"id": kind.tag} if kind.tag else {})


def _things(things: Sequence[Thing]) -> Iterable[str]:
    always = dict.fromkeys(("skill1", "skill2", "skill3", "skill4", "skill5", "single", "dm", "coop"), True)
    for thing in things:
        x, y = centre(thing.cell)
        fields: dict[str, object] = {"type": thing.kind, "x": x, "y": y, "angle": thing.angle}
        fields |= {"id": thing.tid} if thing.tid else {}
        yield _block("thing", fields | {f"arg{i}": a for i, a in enumerate(thing.args)} | always)


def _block(kind: str, fields: dict[str, object]) -> str:
    return f"{kind} {{ {' '.join(f'{key} = {_value(value)};' for key, value in fields.items())} }}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
