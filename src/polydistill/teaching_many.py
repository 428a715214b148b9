"""Many teachers from one command: a process for each game, several at once, each on cores of its own.

A game's process is ``polydistill teach --task GAME``, so whatever that can do (resume, shadow students, settings of one
task) this can, and a game that fails does not take the others with it.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live

from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError
from polydistill.processes import Children
from polydistill.training.games import Game, table

#: The ten games of Yin & Pan (2017), Table 1.
YIN_PAN = (
    "beam_rider", "breakout", "enduro", "freeway", "ms_pacman", "pong", "qbert", "seaquest", "space_invaders",
    "riverraid",
)  # fmt: skip

SECONDS = 2.0  # between two looks at the files


def games_of(names: Sequence[str]) -> list[str]:
    """Task names; ``all`` stands for Yin & Pan's ten games.

    Raises:
        UserError: a name given twice, or unknown.
    """
    tasks = [task for name in names for task in (YIN_PAN if name == "all" else (name,))]
    for task in tasks:
        resolve_task(task)
        if tasks.count(task) > 1:
            raise UserError(f"--tasks: {task} is named twice")
    return tasks


def shares(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Cores for each of ``workers`` processes: all of them, as evenly as it goes; shared where there are too few.

    Raises:
        UserError: there would be no worker.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1; found {workers}")
    return [list(cores[i::workers]) or [cores[i % len(cores)]] for i in range(workers)]


def teach_many(
    games: Sequence[Game],
    arguments: Callable[[Game], Sequence[str]],
    *,
    workers: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> int:
    """Train every game that is not finished, ``workers`` at a time.

    Args:
        arguments: What stands after ``polydistill`` to train a game from the beginning.
        workers: Processes at once; 0: one per core, and no more than there are games.
        overwrite: Replace what is there.

    Returns:
        0; or 130 after SIGINT or SIGTERM: every game has a checkpoint then, and the same call goes on.

    Raises:
        UserError: games failed, after the others were trained.
    """
    console = console or Console()
    cores = sorted(os.sched_getaffinity(0))
    begun = {game.task: game.begin(overwrite=overwrite) for game in games}
    for game in games:
        if begun[game.task] is None:
            game.state = "finished"
    waiting = [game for game in games if game.state == "waiting"]
    slots = shares(cores, workers or min(len(cores), max(len(waiting), 1)))
    with Children() as children, _Screen(games, console) as screen:
        busy: dict[int, _Training] = {}
        while busy or (waiting and not children.stopped):
            for k in range(len(slots)):
                if k not in busy and waiting and not children.stopped:
                    game = waiting.pop(0)
                    command = [*arguments(game), "--threads", str(len(slots[k])), *(begun[game.task] or [])]
                    process = children.start(command, slots[k], subprocess.PIPE)
                    busy[k] = _Training(game, process, screen.say)
            screen.renew()
            time.sleep(SECONDS)
            for k, training in list(busy.items()):
                if training.ended(children.stopped):
                    del busy[k]
    if children.stopped:
        console.print(f"stopped; the same command{' without --overwrite' if overwrite else ''} continues")
        return 130
    if failed := [game for game in games if game.state == "failed"]:
        told = "; ".join(f"{game.task} ({game.error})" for game in failed)
        raise UserError(f"{len(failed)} of {len(games)} trainings failed: {told}")
    return 0


class _Training:
    """A game's process, and a thread that hands its lines on."""

    def __init__(self, game: Game, process: subprocess.Popen[str], say: Callable[[str], None]) -> None:
        self._game, self._process = game, process
        self._line = ""
        self._reader = threading.Thread(target=self._read, args=(say,), daemon=True)
        game.state = "training"
        self._reader.start()

    def _read(self, say: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if text := line.strip():
                self._line = text
                say(text)

    def ended(self, stopped: bool) -> bool:
        """Whether the process has ended; the game says how."""
        code = self._process.poll()
        if code is None:
            return False
        self._reader.join()
        self._game.state = "finished" if code == 0 else "stopped" if stopped or code == 130 else "failed"
        if self._game.state == "failed":
            self._game.error = self._line or f"exit code {code}"
        return True


class _Screen:
    """A table that renews itself in a terminal; elsewhere every line as it comes, and the table at the end."""

    def __init__(self, games: Sequence[Game], console: Console) -> None:
        self._games, self._console = games, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> _Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._read()
        if self._live is not None:
            self._live.update(table(self._games))
            self._live.stop()
        else:
            self._console.print(table(self._games))

    def say(self, text: str) -> None:
        """A line of one of the trainings."""
        if self._live is None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def renew(self) -> None:
        """Read the games' files, and draw; nothing where nobody would see it."""
        if self._live is not None:
            self._read()
            self._live.update(table(self._games), refresh=True)

    def _read(self) -> None:
        for game in self._games:
            game.read()
