"""``polydistill teach``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from polydistill.errors import UserError
from polydistill.verbs.base import File, Float, Int, Set, Switch, Text, command, flag, kickstart


@dataclass(frozen=True)
class Teach:
    """Train a teacher and write it, with its card, to a folder; or many of them at once."""

    task: Text = None
    """A game's ROM id, for example pong."""
    tasks: Annotated[tuple[str, ...], flag("NAME ...")] = ()
    """Several games, each in a process of its own; all: the ten of Yin & Pan (2017). What was cut goes on."""
    workers: Annotated[int, flag("N")] = 0
    """Games of --tasks that are trained at once; one per core if not given. The cores are divided between them."""
    out: Annotated[Path | None, flag("FOLDER")] = None
    """Folder of the teacher, zoo/TASK if not given; with --tasks, the folder of their folders, zoo if not given."""
    recipe: Annotated[str, arg(metavar="RECIPE")] = "fast"
    """fast, nature or a YAML file."""
    steps: Int = None
    """Control steps in all (one is four frames)."""
    seed: Annotated[int, arg(metavar="N")] = 1
    """Root of all randomness."""
    device: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda ..."""
    threads: Annotated[int, flag("N")] = 0
    """Emulator threads; 0, as when left out: one per core."""
    set: Set = ()
    """Any setting of the recipe, for example settings.num_envs=16."""
    start_from: File = None
    """A teacher of the same game whose weights training starts from; --steps are those after it. There is no random
    play at first, unless settings.epsilon_start asks for it, and the card counts what that teacher took too."""
    shadow_student: Annotated[str | None, flag("net1|net2|net3|NETWORK")] = None
    """A small student that follows the best network so far; it goes to OUT/student. Its settings: --set shadow.KEY."""
    kickstart: File = None
    """A teacher of the same game that helps in the beginning: the learner is drawn to its policy, less and less."""
    kickstart_weight: Float = None
    """Weight of that help in the beginning."""
    kickstart_steps: Int = None
    """Control steps after which there is none of it. Other settings of it: --set kickstart.KEY."""
    resume: Switch = False
    """Continue from the newest checkpoint in --out; where it holds a finished teacher without one, from its weights."""
    overwrite: Switch = False
    """Replace the teacher in --out."""

    def run(self) -> int:
        """Exit code."""
        if bool(self.tasks) == (self.task is not None):
            raise UserError("name one game with --task, or several with --tasks")
        return self._many() if self.tasks else self._one(str(self.task))

    def _one(self, task: str) -> int:
        from polydistill.teaching import teach

        if self.workers:
            raise UserError("--workers is for --tasks: one game has one process")
        finished = teach(
            task,
            self.out or Path("zoo") / task,
            recipe=self.recipe,
            overrides=self._overrides(),
            seed=self.seed,
            device=self.device,
            resume=self.resume,
            overwrite=self.overwrite,
            start=self.start_from,
            threads=self.threads,
            command=command(),
            say=lambda text: print(text, flush=True),
        )
        return 0 if finished else 130

    def _overrides(self) -> dict[str, Any]:
        from polydistill.recipe import parse_assignment

        overrides: dict[str, Any] = dict(parse_assignment(text) for text in self.set)
        if self.steps is not None:
            overrides["total_steps"] = self.steps
        if self.shadow_student is not None:
            overrides["shadow.student"] = self.shadow_student
        return overrides | kickstart(self.kickstart, self.kickstart_weight, self.kickstart_steps)

    def _many(self) -> int:
        from polydistill.teaching import recipe_for
        from polydistill.teaching_many import games_of, teach_many
        from polydistill.training.games import Game

        helped = kickstart(self.kickstart, self.kickstart_weight, self.kickstart_steps)
        if self.start_from or self.resume or self.threads or helped:
            raise UserError("--tasks goes on by itself: leave out --start-from, --resume, --threads and --kickstart")
        overrides = self._overrides()
        parent = self.out or Path("zoo")
        games = [
            Game(
                t,
                parent / t,
                recipe_for(self.recipe, t, overrides).total_steps,
                self.recipe,
                "total_steps" in overrides,
            )
            for t in games_of(self.tasks)
        ]

        def arguments(game: Game) -> list[str]:
            flags = ["--recipe", self.recipe, "--seed", str(self.seed), "--device", self.device]
            if self.steps is not None:
                flags += ["--steps", str(self.steps)]
            if self.shadow_student is not None:
                flags += ["--shadow-student", self.shadow_student]
            if self.set:
                flags += ["--set", *self.set]
            return ["teach", "--task", game.task, "--out", str(game.folder), *flags]

        return teach_many(games, arguments, workers=self.workers, overwrite=self.overwrite)
