"""``polydistill transfer``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from polydistill.verbs.base import File, Float, Int, Set, Switch, Text, command, flag, kickstart


@dataclass(frozen=True)
class Transfer:
    """Learn a task with a Q-learner whose first weights are those of a student or teacher of other tasks."""

    source: Positional[Annotated[Path | None, arg(metavar="SOURCE", help_behavior_hint="")]] = None
    """Folder of a run (its student) or of a teacher. With --init random its network is taken, its weights are not;
    without SOURCE there are random weights in the recipe's network."""
    task: Annotated[str, arg(metavar="NAME")] = ""
    """What is learnt: a game's ROM id, or any task that shows what the source saw."""
    out: File = None
    """Folder of the run and its teacher; runs/transfer-TASK if not given."""
    init: Annotated[str | None, flag("source|amn-policy|amn-feature|random")] = None
    """source, as when left out: the weights of SOURCE. amn-policy and amn-feature are the same and refuse a SOURCE that
    was distilled with, or without, feature regression. random: fresh weights, the baseline."""
    head: Annotated[str | None, flag("keep18|reinit")] = None
    """keep18, as when left out: outputs are kept, by the actions' meanings. reinit: the last layer is drawn anew."""
    recipe: Annotated[str, arg(metavar="RECIPE")] = "fast"
    """How it learns: fast, nature or a YAML file, as for teach."""
    steps: Int = None
    """Control steps in all (one is four frames)."""
    against: File = None
    """A teacher of the task for comparison; it takes no part in the training."""
    kickstart: File = None
    """A policy that helps in the beginning: a teacher of the task, or SOURCE itself."""
    kickstart_weight: Float = None
    """Weight of that help in the beginning."""
    kickstart_steps: Int = None
    """Control steps after which there is none of it. Other settings of it: --set kickstart.KEY."""
    seed: Annotated[int, arg(metavar="N")] = 1
    """Root of all randomness."""
    device: Text = None
    """auto, cpu, cuda ..."""
    threads: Int = None
    """Emulator threads; as many as cores if left out."""
    set: Set = ()
    """Any other setting, for example settings.num_envs=16 or hand_over.warmup_updates=0."""
    resume: Switch = False
    """Continue from the newest checkpoint in --out."""
    overwrite: Switch = False
    """Replace the run in --out."""

    def run(self) -> int:
        """Exit code."""
        from polydistill import transferring
        from polydistill.errors import UserError
        from polydistill.recipe import parse_assignment

        if not self.task:
            raise UserError("--task is missing: name what is to be learnt, for example --task breakout")
        overrides: dict[str, Any] = dict(parse_assignment(text) for text in self.set)
        typed = {
            "source": str(self.source) if self.source is not None else None,
            "init": self.init,
            "hand_over.head": self.head,
            "total_steps": self.steps,
            "against": str(self.against) if self.against is not None else None,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
        }
        overrides |= {key: value for key, value in typed.items() if value is not None}
        overrides |= kickstart(self.kickstart, self.kickstart_weight, self.kickstart_steps)
        finished = transferring.transfer(
            transferring.transfer_recipe(self.recipe, self.task, overrides),
            self.out or Path("runs") / f"transfer-{self.task}",
            resume=self.resume,
            overwrite=self.overwrite,
            command=command(),
            say=lambda text: print(text, flush=True),
        )
        return 0 if finished else 130
