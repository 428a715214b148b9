"""``polydistill teach``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from polydistill.verbs.base import File, Int, Set, Switch, command, flag


@dataclass(frozen=True)
class Teach:
    """Train a teacher and write it, with its card, to a folder."""

    task: Annotated[str, arg(metavar="NAME")]
    """A game's ROM id, for example pong."""
    out: Annotated[Path | None, flag("FOLDER")] = None
    """Folder of the teacher; zoo/TASK if not given."""
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
    """A teacher of the same game whose weights training starts from."""
    shadow_student: Annotated[str | None, flag("net1|net2|net3|NETWORK")] = None
    """A small student that follows the best network so far; it goes to OUT/student. Its settings: --set shadow.KEY."""
    resume: Switch = False
    """Continue from the newest checkpoint in --out."""
    overwrite: Switch = False
    """Replace the teacher in --out."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.recipe import parse_assignment
        from polydistill.teaching import teach

        overrides = dict(parse_assignment(text) for text in self.set)
        if self.steps is not None:
            overrides["total_steps"] = self.steps
        if self.shadow_student is not None:
            overrides["shadow.student"] = self.shadow_student
        finished = teach(
            self.task,
            self.out or Path("zoo") / self.task,
            recipe=self.recipe,
            overrides=overrides,
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
