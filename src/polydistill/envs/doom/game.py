"""One ViZDoom engine: a process of its own, fed with one level per episode."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.envs.doom import actors
from polydistill.envs.doom.actions import ACTIONS, BUTTONS
from polydistill.envs.doom.levels import REPEAT, Plan, Spec
from polydistill.envs.doom.udmf import centre, textmap
from polydistill.envs.doom.wad import level_wad
from polydistill.errors import UserError

SCREEN = (120, 160)  # rows, columns: ViZDoom's smallest screen
SIDE = 84  # rows and columns of an observation (Teh et al. 2017)

#: Bytes of the one map in the WAD. The engine reads it anew at each episode, so that an episode's level is written in
#: its place, filled up with blanks.
_ROOM = 1 << 16

_MAP = "MAP01"

#: A game of one machine, so that the built-in bots play: shot players come back at once, bullets go where one looks.
_HOST = "-host 1 -deathmatch +sv_forcerespawn 1 +sv_noautoaim 1 +sv_nofreelook 1 +timelimit 0 +fraglimit 0"

_ROWS = np.arange(SIDE) * SCREEN[0] // SIDE
_COLUMNS = np.arange(SIDE) * SCREEN[1] // SIDE
_PIXELS = (_ROWS[:, None] * SCREEN[1] + _COLUMNS).ravel()


def vizdoom() -> Any:
    """The package.

    Raises:
        UserError: it is missing.
    """
    try:
        import vizdoom as package
    except ImportError:
        raise UserError("doom tasks need ViZDoom: pip install 'polydistill[doom]'") from None
    return package


def shrink(screen: np.ndarray, out: np.ndarray) -> None:
    """A BGRA screen, uint8 ``[120, 160, 4]``, as RGB in ``out``, uint8 ``[3, 84, 84]``.

    Single pixels are taken, as an engine that draws 84 x 84 of them would; means of two cost 5 % of the speed.
    """
    pixels = screen.reshape(-1).view(np.uint32).take(_PIXELS)
    out[...] = pixels.view(np.uint8).reshape(SIDE, SIDE, 4)[..., 2::-1].transpose(2, 0, 1)


class Game:
    """One engine that plays ``spec``.

    Args:
        spec: The task.
        folder: A folder of its own, which it fills; the caller removes it.
        size: ViZDoom's name of the screen's size; another than the default is for pictures.

    Raises:
        UserError: ViZDoom is missing.
    """

    def __init__(self, spec: Spec, folder: Path, size: str = "RES_160X120"):
        self._viz, self._spec, self._size = vizdoom(), spec, size
        self._wad = folder / "level.wad"
        self._starter = _starter(folder, Path(self._viz.__file__).parent / "vizdoom")
        self._presses = [press.values() for press in ACTIONS[spec.suite].values()]
        variable = self._viz.GameVariable
        pays = ((variable.FRAGCOUNT, actors.TAG_POINTS), (variable.ITEMCOUNT, actors.BADGE_POINTS))
        self._pays = pays if spec.bots else ((variable.ARMOR, 1.0),)
        self.engine: Any = None  # vizdoom.DoomGame, once open
        self._at = 0  # where the level stands in the WAD
        self._score = 0.0
        self.plan: Plan | None = None

    def open(self, seed: int, plan: Plan) -> None:
        """Start the engine, or start it afresh where it would remember the games before: bots do."""
        if self.engine is not None and not self._spec.bots:
            return
        self.close()
        texts = {"DECORATE": actors.DECORATE} | ({"ZMAPINFO": actors.TAG_MAPINFO} if self._spec.bots else {})
        data = level_wad(texts, [(_MAP, _filled(plan))])
        self._at = data.index(b"namespace")
        self._wad.write_bytes(data)
        self.engine = self._engine(seed)
        self.engine.init()

    def _engine(self, seed: int) -> Any:
        viz = self._viz
        game = viz.DoomGame()
        game.set_vizdoom_path(str(self._starter))
        game.set_doom_game_path(str(Path(viz.__file__).parent / "freedoom2.wad"))
        game.set_doom_scenario_path(str(self._wad))
        game.set_doom_config_path(os.devnull)  # it reads its settings there and writes them, even after close()
        game.set_doom_map(_MAP)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_screen_resolution(getattr(viz.ScreenResolution, self._size))
        game.set_screen_format(viz.ScreenFormat.BGRA32)
        for drawn in (game.set_render_hud, game.set_render_weapon, game.set_render_messages, game.set_render_decals):
            drawn(False)
        game.set_render_crosshair(bool(self._spec.bots))
        game.set_available_buttons([getattr(viz.Button, name) for name in BUTTONS])
        game.set_mode(viz.Mode.PLAYER)
        game.set_episode_timeout(0)
        if self._spec.bots:
            game.add_game_args(_HOST)
        game.set_seed(seed)
        return game

    def begin(self, seed: int, plan: Plan) -> None:
        """Start an episode. What happens in it follows from the seed, the plan and the actions."""
        with self._wad.open("r+b") as file:
            file.seek(self._at)
            file.write(_filled(plan).encode("ascii"))
        game, variable = self.engine, self._viz.GameVariable
        game.set_seed(seed)
        game.new_episode()
        if self._spec.bots:
            for command in ("removebots", *["addbot"] * self._spec.bots):
                game.send_game_command(command)
        here = game.get_game_variable(variable.POSITION_X), game.get_game_variable(variable.POSITION_Y)
        if all(np.abs(np.subtract(here, centre(cell))).max() > 1 for cell in plan.starts):
            raise RuntimeError(f"the engine plays another level than the one written: the player stands at {here}")
        self.plan, self._score = plan, self._points()

    def play(self, action: int) -> tuple[float, bool]:
        """One control step: its reward, and whether the player was tagged in it."""
        game = self.engine
        game.make_action(self._presses[action], REPEAT)
        lost = bool(self._spec.bots) and bool(game.is_player_dead())
        if lost:
            game.respawn_player()
        score = self._points()
        reward, self._score = score - self._score, score
        return reward, lost

    def done(self) -> bool:
        """Whether nothing is left to do in this episode."""
        assert self.plan is not None
        return self.plan.points is not None and self._score >= self.plan.points

    def _points(self) -> float:
        return float(sum(self.engine.get_game_variable(counter) * points for counter, points in self._pays))

    def screen(self) -> np.ndarray:
        """The screen as it is, uint8 BGRA ``[rows, columns, 4]``, valid until the next step."""
        screen: np.ndarray = self.engine.get_state().screen_buffer
        return screen

    def position(self) -> tuple[float, float, float]:
        """``(x, y, angle)`` of the player in map units and degrees."""
        variable = self._viz.GameVariable
        x, y, angle = (
            float(self.engine.get_game_variable(v)) for v in (variable.POSITION_X, variable.POSITION_Y, variable.ANGLE)
        )
        return x, y, angle

    def close(self) -> None:
        """End the engine's process."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None


def _starter(folder: Path, engine: Path) -> Path:
    """A program that runs the engine in ``folder`` and lets Ctrl-C pass it by.

    The engine litters the folder it is started in, which has to be writable; and a terminal sends Ctrl-C to all
    processes, while it is the trainer that decides when its engines end.
    """
    path = folder / "engine"
    place, program = shlex.quote(str(folder)), shlex.quote(str(engine))
    path.write_text(f"#!/bin/sh\ntrap '' INT\ncd {place} && exec {program} \"$@\"\n")
    path.chmod(0o700)
    return path


def _filled(plan: Plan) -> str:
    text = textmap(plan.level)
    if len(text) > _ROOM:
        raise ValueError(f"a level of {len(text)} characters; there is room for {_ROOM}")
    return text.ljust(_ROOM)
