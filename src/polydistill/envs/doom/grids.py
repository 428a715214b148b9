"""Floor plans: mazes with loops, and arenas with pillars. Pure functions of a NumPy generator.

A grid is a bool array ``[rows, columns]``, True where one can stand; its border is wall. The method is the usual one of
labmaze, DeepMind Lab's generator: rooms, corridors dug depth first on the odd cells, then walls taken away until there
are loops. It is written out here because a task has to be the same task on every Python, and labmaze has no wheel for
3.13 (its shuffles also follow the C++ library that it was built with).
"""

from __future__ import annotations

from collections import deque

import numpy as np

Cell = tuple[int, int]

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def maze(rng: np.random.Generator, size: int, loops: int, rooms: int = 0) -> np.ndarray:
    """A connected maze, bool ``[size, size]``.

    Args:
        size: Odd, 5 or more; corridors are one cell wide.
        loops: Inner walls taken away after the maze is a tree; fewer if there are no more.
        rooms: Squares of 3 x 3 cells cleared at random places.

    Raises:
        ValueError: ``size`` is even or below 5.
    """
    if size < 5 or size % 2 == 0:
        raise ValueError(f"a maze has an odd size from 5 up; found {size}")
    grid = np.zeros((size, size), dtype=np.bool_)
    lattice = size // 2
    row, column = (2 * int(n) + 1 for n in rng.integers(0, lattice, 2))
    grid[row, column] = True
    path = [(row, column)]
    while path:
        r, c = path[-1]
        fresh = [
            (dr, dc)
            for dr, dc in _STEPS
            if 0 < r + 2 * dr < size and 0 < c + 2 * dc < size and not grid[r + 2 * dr, c + 2 * dc]
        ]
        if not fresh:
            path.pop()
            continue
        dr, dc = fresh[int(rng.integers(len(fresh)))]
        grid[r + dr, c + dc] = grid[r + 2 * dr, c + 2 * dc] = True
        path.append((r + 2 * dr, c + 2 * dc))
    for _ in range(rooms):
        r, c = (2 * int(n) + 1 for n in rng.integers(0, lattice - 1, 2))
        grid[r : r + 3, c : c + 3] = True
    walls = between(grid, floor=False)
    for i in rng.permutation(len(walls))[:loops].tolist():
        grid[walls[i]] = True
    return grid


def between(grid: np.ndarray, *, floor: bool) -> list[Cell]:
    """Cells that part exactly two opposite floor cells and touch no other: floor (a door fits there) or wall."""
    found = []
    for r, c in zip(*np.nonzero(grid[1:-1, 1:-1] == floor), strict=True):
        row, column = int(r) + 1, int(c) + 1
        east, south, west, north = (bool(grid[row + dr, column + dc]) for dr, dc in _STEPS)
        if (east and west and not north and not south) or (north and south and not east and not west):
            found.append((row, column))
    return found


def arena(rng: np.random.Generator, size: int, pillars: int) -> np.ndarray:
    """One open room with ``pillars`` single-cell pillars, bool ``[size, size]``, connected.

    Raises:
        ValueError: ``size`` below 5, or more pillars than there are places, which are the even cells inside.
    """
    places = [(r, c) for r in range(2, size - 2, 2) for c in range(2, size - 2, 2)]
    if size < 5 or pillars > len(places):
        raise ValueError(f"an arena of size {size} has room for {len(places)} pillars; found {pillars}")
    grid = np.zeros((size, size), dtype=np.bool_)
    grid[1:-1, 1:-1] = True
    for i in rng.permutation(len(places))[:pillars].tolist():
        grid[places[i]] = False
    return grid


def floor_cells(grid: np.ndarray) -> list[Cell]:
    """The cells one can stand on, row by row."""
    return [(int(r), int(c)) for r, c in zip(*np.nonzero(grid), strict=True)]


def distances(grid: np.ndarray, start: Cell) -> np.ndarray:
    """int64 ``[rows, columns]``: steps from ``start`` through floor cells, -1 where none leads."""
    steps = np.full(grid.shape, -1, dtype=np.int64)
    steps[start] = 0
    queue = deque([start])
    while queue:
        r, c = queue.popleft()
        for dr, dc in _STEPS:
            near = (r + dr, c + dc)
            if grid[near] and steps[near] < 0:
                steps[near] = steps[r, c] + 1
                queue.append(near)
    return steps
