"""The twenty-four tasks: what their levels hold, what pays, and which actions they have.

Teh et al. 2017 (Distral), section 4 and Table 2, played DeepMind Lab; the suites have its names and its structure.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from polydistill.envs.doom import actors
from polydistill.envs.doom.grids import Cell, arena, between, distances, floor_cells, maze
from polydistill.envs.doom.udmf import HEIGHT, Level, Sector, Thing

TICS = 2_100  # engine tics in one episode = 60 s at 35 Hz
REPEAT = 4  # engine tics in one control step (Teh et al., appendix B)

JUMP_UP = 40  # map units: a player steps up 24 and jumps 56

#: Freedoom's names of wall textures, four to a level.
_WALLS = (
    ("STARTAN3", "ICKWALL1", "STARG1", "ROCKRED1"),
    ("BRICK7", "SILVER1", "GSTONE1", "LITEBLU4"),
    ("BRICK12", "CEMENT1", "MARBLE1", "REDWALL"),
    ("STARBR2", "GRAYBIG", "NUKE24", "FIREBLU1"),
)
_DOOR = "BIGDOOR2"
_DOOR_TAG = 10  # the first door's tag


@dataclass(frozen=True)
class Plan:
    """One episode: its level, where the player may stand at first, and the points after which nothing is left to do."""

    level: Level
    starts: tuple[Cell, ...]
    points: int | None = None


@dataclass(frozen=True)
class Spec:
    """One task.

    Attributes:
        suite: ``mazes``, ``nav`` or ``tag``; the tasks of one suite have the same actions.
        plan: Draws an episode from a generator.
        bots: Built-in opponents; 0 means a game without weapons.
    """

    suite: str
    plan: Callable[[np.random.Generator], Plan]
    bots: int = 0


def _shuffled(rng: np.random.Generator, cells: Sequence[Cell]) -> list[Cell]:
    return [cells[i] for i in rng.permutation(len(cells)).tolist()]


def _player(rng: np.random.Generator, grid: np.ndarray, cell: Cell) -> Thing:
    """A player who looks along a corridor."""
    ways = {0: (0, 1), 90: (-1, 0), 180: (0, -1), 270: (1, 0)}
    open_ways = [angle for angle, (dr, dc) in ways.items() if grid[cell[0] + dr, cell[1] + dc]]
    return Thing(actors.PLAYER_START, cell, open_ways[int(rng.integers(len(open_ways)))])


def _level(grid: np.ndarray, look: int, things: Sequence[Thing], raised: Sequence[tuple[Cell, Sector]] = ()) -> Level:
    """A level of one plain sector and of cells with a sector of their own."""
    sectors = np.where(grid, 0, -1)
    for i, (cell, _) in enumerate(raised):
        sectors[cell] = i + 1
    return Level(sectors, (Sector(), *(s for _, s in raised)), _WALLS[look % len(_WALLS)], _DOOR, tuple(things))


def _goal(goal: Cell, starts: Sequence[Cell]) -> list[Thing]:
    """A goal, and where it sends a player who has found it."""
    return [Thing(actors.GOAL, goal), *(Thing(actors.TELEPORT_DESTINATION, c, 0, actors.STARTS_TID) for c in starts)]


def fixed_maze(name: str, size: int, loops: int, apples: int, look: int, rng: np.random.Generator) -> Plan:
    """Layout, apples and goal depend on ``name`` alone; only the start is drawn."""
    fixed = _fixed(name)
    grid = maze(fixed, size, loops)
    goal, *free = _shuffled(fixed, floor_cells(grid))
    starts = free[apples:]
    things = [*_goal(goal, starts), *(Thing(actors.APPLE, c) for c in free[:apples])]
    start = starts[int(rng.integers(len(starts)))]
    return Plan(_level(grid, look, [_player(rng, grid, start), *things]), (start,))


def collect(rng: np.random.Generator) -> Plan:
    """Ten apples in a maze; the episode terminates with the last one."""
    grid, start, free = _fresh(rng)
    things = [_player(rng, grid, start), *(Thing(actors.APPLE, c) for c in free[:10])]
    return Plan(_level(grid, int(rng.integers(4)), things), (start,), 10 * actors.APPLE_POINTS)


def bring_back(rng: np.random.Generator) -> Plan:
    """Six parcels to bring to the pillar at the start; the episode terminates with the last one delivered."""
    grid, start, free = _fresh(rng)
    things = [_player(rng, grid, start), Thing(actors.BASE, start), *(Thing(actors.PARCEL, c) for c in free[:6])]
    points = 6 * (actors.PARCEL_POINTS + actors.DELIVERY_POINTS)
    return Plan(_level(grid, int(rng.integers(4)), things), (start,), points)


def find_again(doors: int, rng: np.random.Generator) -> Plan:
    """One goal to be found again from ever new starts, with up to ``doors`` doors that open and close by chance."""
    grid, start, free = _fresh(rng, loops=12 if doors else 6)
    far = distances(grid, start)
    goal = max(free[:5], key=lambda cell: int(far[cell]))
    gates = [c for c in _shuffled(rng, between(grid, floor=True)) if c not in (start, goal)][:doors]
    starts = [c for c in free if c != goal and c not in gates]
    keepers = [Thing(actors.DOOR_KEEPER, c, args=(_DOOR_TAG + i,)) for i, c in enumerate(gates)]
    rooms = [(c, Sector(tag=_DOOR_TAG + i)) for i, c in enumerate(gates)]
    things = [_player(rng, grid, start), *_goal(goal, starts), *keepers]
    return Plan(_level(grid, int(rng.integers(4)), things, rooms), (start,))


def tag(number: int, rng: np.random.Generator) -> Plan:
    """An arena: a small one, a large one, one of rooms and corridors, one with blocks to jump on. 5 to 8: generated."""
    kind = (number - 1) % 4
    draw = _fixed(f"tag-{number}") if number <= 4 else rng
    grid = (
        arena(draw, 9, 4),
        arena(draw, 11, 8),
        maze(draw, 11, loops=10, rooms=5),
        arena(draw, 11, 4),
    )[kind]
    free = _shuffled(draw, floor_cells(grid))
    starts, badges, free = free[:8], free[8:14], free[14:]
    blocks = badges if kind == 3 else []
    raised = [(c, Sector(floor=JUMP_UP, ceiling=HEIGHT + JUMP_UP)) for c in blocks]
    things = [Thing(actors.PLAYER_START, starts[0])]
    things += [Thing(actors.DEATHMATCH_START, c, 90 * (i % 4)) for i, c in enumerate(starts)]
    things += [Thing(actors.BADGE, c) for c in badges]
    return Plan(_level(grid, number, things, raised), tuple(starts))


def _fixed(name: str) -> np.random.Generator:
    """The generator of a layout that never changes."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def _fresh(rng: np.random.Generator, loops: int = 6) -> tuple[np.ndarray, Cell, list[Cell]]:
    """A new maze of 11 x 11 cells, a start, and the other floor cells in random order."""
    grid = maze(rng, 11, loops, rooms=1)
    start, *free = _shuffled(rng, floor_cells(grid))
    return grid, start, free


_TAG_BOTS = (1, 3, 2, 3)

#: Task name after ``doom:`` -> task.
SPECS: dict[str, Spec] = {
    **{
        f"mazes-{n}": Spec("mazes", partial(fixed_maze, f"mazes-{n}", 9 if n <= 4 else 11, 4, 6, n))
        for n in range(1, 9)
    },
    **{f"small-{n}": Spec("mazes", partial(fixed_maze, f"small-{n}", 5, 1, 2, n)) for n in range(1, 5)},
    "nav-1": Spec("nav", collect),
    "nav-2": Spec("nav", bring_back),
    "nav-3": Spec("nav", partial(find_again, 0)),
    "nav-4": Spec("nav", partial(find_again, 6)),
    **{f"tag-{n}": Spec("tag", partial(tag, n), _TAG_BOTS[(n - 1) % 4]) for n in range(1, 9)},
}
