"""Floor plans, UDMF text and WAD bytes against values typed in; no engine."""

from __future__ import annotations

import hashlib
import re
import struct

import numpy as np
import pytest

from polydistill.envs.doom import actors
from polydistill.envs.doom.actions import ACTIONS, BUTTONS, Press
from polydistill.envs.doom.game import shrink
from polydistill.envs.doom.grids import arena, between, distances, floor_cells, maze
from polydistill.envs.doom.levels import SPECS
from polydistill.envs.doom.udmf import Level, Sector, Thing, centre, textmap
from polydistill.envs.doom.wad import level_wad, read_wad, wad

MAZE_1 = [
    "#########",
    "#.......#",
    "#.###.#.#",
    "#...#...#",
    "#.#.#.#.#",
    "#...#...#",
    "#.#.###.#",
    "#.#.....#",
    "#########",
]
LAYOUTS = "2824cff2b036d5b6"


def grid_of(*rows: str) -> np.ndarray:
    return np.array([[c == "." for c in row] for row in rows])


def text_of(grid: np.ndarray) -> list[str]:
    return ["".join(".#"[not cell] for cell in row) for row in grid]


@pytest.mark.parametrize("seed", range(20))
def test_a_maze_is_connected_and_walled(seed: int) -> None:
    tree = maze(np.random.default_rng(seed), 11, loops=0)
    looped = maze(np.random.default_rng(seed), 11, loops=4)
    rooms = maze(np.random.default_rng(seed), 11, loops=4, rooms=2)
    for grid in (tree, looped, rooms, arena(np.random.default_rng(seed), 9, 4)):
        assert grid[1:-1, 1:-1].sum() == grid.sum()
        assert (distances(grid, floor_cells(grid)[0]) >= 0).sum() == grid.sum()
    # 25 rooms of the lattice and 24 passages make a tree; every wall taken away adds a cell, and a loop.
    assert tree.sum() == 49
    assert looped.sum() == 53
    assert rooms.sum() > 53


def test_an_arena_has_its_pillars() -> None:
    assert arena(np.random.default_rng(0), 9, 4).sum() == 49 - 4
    with pytest.raises(ValueError, match="room for 9 pillars"):
        arena(np.random.default_rng(0), 9, 10)
    for size in (3, 8):
        with pytest.raises(ValueError, match="odd size"):
            maze(np.random.default_rng(0), size, 0)


def test_distances_and_doorways() -> None:
    grid = grid_of("#######", "#...#.#", "#.#.#.#", "#.#...#", "#######")
    assert distances(grid, (1, 1))[1].tolist() == [-1, 0, 1, 2, -1, 8, -1]
    assert distances(grid, (3, 1))[3, 5] == 8
    # A door fits where a corridor is straight; a wall falls where it parts two corridors and nothing else.
    assert between(grid, floor=True) == [(1, 2), (2, 1), (2, 3), (2, 5), (3, 4)]
    assert between(grid, floor=False) == [(1, 4), (3, 2)]


def test_fixed_layouts_never_change() -> None:
    grid = SPECS["mazes-1"].plan(np.random.default_rng(0)).level.sectors >= 0
    assert text_of(grid) == MAZE_1
    plans = [SPECS[f"mazes-{n}"].plan(np.random.default_rng(0)).level for n in range(1, 9)]
    plans += [SPECS[f"tag-{n}"].plan(np.random.default_rng(0)).level for n in range(1, 5)]
    digest = hashlib.sha256(b"".join(level.sectors.astype(np.int8).tobytes() for level in plans)).hexdigest()
    assert digest[:16] == LAYOUTS  # a change here changes every run


def things(name: str, seed: int) -> list[Thing]:
    return list(SPECS[name].plan(np.random.default_rng(seed)).level.things)


@pytest.mark.parametrize("name", SPECS)
def test_levels(name: str) -> None:
    plans = [SPECS[name].plan(np.random.default_rng(seed)) for seed in range(12)]
    maze = name.startswith(("mazes", "small"))
    fixed = maze or name in ("tag-1", "tag-2", "tag-3", "tag-4")
    grids = {plan.level.sectors.tobytes() for plan in plans}
    assert (len(grids) == 1) == fixed
    if maze:
        # Only the player's own start differs from episode to episode.
        others = {tuple(t for t in p.level.things if t.kind != actors.PLAYER_START) for p in plans}
        assert len(others) == 1
        assert len({p.starts for p in plans}) > (3 if name.startswith("small") else 6)
    for plan in plans:
        level, floor = plan.level, plan.level.sectors >= 0
        assert all(floor[t.cell] for t in level.things)
        assert (distances(floor, plan.starts[0]) >= 0).sum() == floor.sum()
        placed = [t.cell for t in level.things if t.kind in (actors.APPLE, actors.PARCEL, actors.GOAL, actors.BADGE)]
        assert len(set(placed)) == len(placed)
        assert not set(placed) & set(plan.starts)
        starts = [t for t in level.things if t.kind == actors.PLAYER_START]
        assert len(starts) == 1
        assert starts[0].cell in plan.starts
    again = SPECS[name].plan(np.random.default_rng(3))
    assert textmap(again.level) == textmap(plans[3].level)


def test_what_each_task_holds() -> None:
    def count(name: str, kind: int) -> int:
        return sum(t.kind == kind for t in things(name, 1))

    assert count("mazes-5", actors.APPLE) == 6
    assert count("mazes-5", actors.GOAL) == 1
    assert count("small-2", actors.APPLE) == 2
    assert count("small-2", actors.GOAL) == 1
    assert count("nav-1", actors.APPLE) == 10
    assert count("nav-2", actors.PARCEL) == 6
    assert count("nav-2", actors.BASE) == 1
    assert count("nav-3", actors.DOOR_KEEPER) == 0
    assert count("nav-4", actors.DOOR_KEEPER) == 6
    assert count("tag-1", actors.DEATHMATCH_START) == 8
    assert count("tag-1", actors.BADGE) == 6
    assert SPECS["nav-1"].plan(np.random.default_rng(1)).points == 10
    assert SPECS["nav-2"].plan(np.random.default_rng(1)).points == 36
    level = SPECS["nav-4"].plan(np.random.default_rng(1)).level
    keepers = {t.cell: t.args[0] for t in level.things if t.kind == actors.DOOR_KEEPER}
    assert {c: level.kinds[level.sectors[c]].tag for c in keepers} == keepers  # a keeper stands in its own door
    assert sorted(keepers.values()) == [10, 11, 12, 13, 14, 15]


def test_actions_press_buttons() -> None:
    assert len(BUTTONS) == 8
    assert Press(forward=1, turn=-5.625).values() == [1, 0, 0, 0, -5.625, 1, 0, 0]
    assert Press(right=-1).values() == [0, 0, 1, 0, 0, 1, 0, 0]
    assert ACTIONS["tag"]["SHOOT"].values() == [0, 0, 0, 0, 0, 1, 1, 0]
    assert (len(ACTIONS["mazes"]), len(ACTIONS["nav"]), len(ACTIONS["tag"])) == (8, 8, 12)
    for suite in ACTIONS.values():
        assert len({tuple(press.values()) for press in suite.values()}) == len(suite)


def test_textmap_of_one_cell() -> None:
    level = Level(
        np.array([[-1, -1, -1], [-1, 0, -1], [-1, -1, -1]]), (Sector(),), ("W",), "D", (Thing(1, (1, 1), 90),)
    )
    assert centre((1, 1)) == (192, -192)
    assert textmap(level).splitlines() == [
        'namespace = "zdoom";',
        "thing { type = 1; x = 192.0; y = -192.0; angle = 90; skill1 = true; skill2 = true; skill3 = true; "
        "skill4 = true; skill5 = true; single = true; dm = true; coop = true; }",
        "vertex { x = 256.0; y = -128.0; }",
        "vertex { x = 256.0; y = -256.0; }",
        "vertex { x = 128.0; y = -256.0; }",
        "vertex { x = 128.0; y = -128.0; }",
        # Clockwise seen from above, so that the room lies to the right of every line.
        "linedef { v1 = 0; v2 = 1; sidefront = 0; blocking = true; }",
        "linedef { v1 = 1; v2 = 2; sidefront = 1; blocking = true; }",
        "linedef { v1 = 2; v2 = 3; sidefront = 2; blocking = true; }",
        "linedef { v1 = 3; v2 = 0; sidefront = 3; blocking = true; }",
        *['sidedef { sector = 0; texturemiddle = "W"; }'] * 4,
        "sector { heightfloor = 0; heightceiling = 128; lightlevel = 255; "
        'texturefloor = "FLOOR4_8"; textureceiling = "CEIL5_1"; }',
    ]


def test_a_door_is_a_sector_with_two_sided_lines() -> None:
    sectors = np.full((3, 5), -1)
    sectors[1, 1:4] = 0, 1, 0
    level = Level(sectors, (Sector(), Sector(tag=7)), ("W",), "D", (Thing(9, (1, 2), args=(7,)),))
    text = textmap(level)
    assert text.count("twosided = true") == 2
    assert text.count("blocking = true") == 8
    assert text.count('texturetop = "D"; texturebottom = "D";') == 4
    assert "id = 7; }" in text
    assert "angle = 0; arg0 = 7;" in text
    sides = re.findall(r"sidedef \{ sector = (\d)", text)
    fronts = re.findall(r"sidefront = (\d+); sideback = (\d+); twosided", text)
    assert [(sides[int(f)], sides[int(b)]) for f, b in fronts] == [("0", "1"), ("0", "1")]
    with pytest.raises(ValueError, match="border"):
        textmap(Level(np.zeros((3, 3), np.int64), (Sector(),), ("W",), "D", ()))


def test_wad_bytes() -> None:
    data = wad([("A", b"xyz"), ("LONGNAME", b"")])
    assert data == (
        b"PWAD" + struct.pack("<ii", 2, 15) + b"xyz"
        + struct.pack("<ii", 12, 3) + b"A\0\0\0\0\0\0\0"
        + struct.pack("<ii", 15, 0) + b"LONGNAME"
    )  # fmt: skip
    assert read_wad(data) == [("A", b"xyz"), ("LONGNAME", b"")]
    many = read_wad(level_wad({"DECORATE": "a"}, [(f"M{i:03}", f"t{i}") for i in range(200)]))
    assert len(many) == 601
    assert many[:4] == [("DECORATE", b"a"), ("M000", b""), ("TEXTMAP", b"t0"), ("ENDMAP", b"")]
    for bad in (b"", b"ZWAD" + bytes(8), data[:-1]):
        with pytest.raises(ValueError, match="WAD"):
            read_wad(bad)
    with pytest.raises(ValueError, match="1 to 8"):
        wad([("NINECHARS", b"")])


def test_shrink_takes_pixels_and_turns_bgra_into_rgb() -> None:
    screen = np.random.default_rng(0).integers(0, 256, (120, 160, 4), dtype=np.uint8)
    out = np.zeros((3, 84, 84), np.uint8)
    shrink(screen, out)
    for y, x, row, column in ((0, 0, 0, 0), (0, 1, 0, 1), (1, 2, 1, 3), (17, 40, 24, 76), (83, 83, 118, 158)):
        blue, green, red, _ = screen[row, column].tolist()
        assert out[:, y, x].tolist() == [red, green, blue]
