"""``polydistill starts``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from polydistill.errors import UserError
from polydistill.verbs.base import File, Switch, command, flag


@dataclass(frozen=True)
class Starts:
    """Make a bundle of start positions for `evaluate --protocol starts`.

    The policy plays whole games; one position within the first 20 % of each is kept. It should not be one that is
    scored from the bundle later, nor its teacher.
    """

    task: Annotated[str, arg(metavar="NAME")]
    """A game's ROM id, for example pong."""
    policy: Annotated[str, arg(metavar="FOLDER|random")]
    """Who plays: a run, an exported student, a teacher; or random."""
    count: Annotated[int, arg(metavar="N")] = 100
    """Positions, one game each."""
    epsilon: Annotated[float, arg(metavar="X")] = 0.05
    """Share of random actions; random takes no others."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Root of all randomness."""
    out: File = None
    """File to write; starts/TASK.json if not given."""
    device: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda ..."""
    threads: Annotated[int, flag("N")] = 0
    """Emulator threads; 0, as when left out: one per core."""
    overwrite: Switch = False
    """Replace the file."""

    def run(self) -> int:
        """Exit code."""
        from polydistill.evaluation.making_starts import make_bundle
        from polydistill.evaluation.start_files import write

        if self.count < 1:
            raise UserError(f"--count must be at least 1; found {self.count}")
        if not 0 <= self.epsilon <= 1:
            raise UserError(f"--epsilon is a probability, from 0 to 1; found {self.epsilon}")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative; found {self.seed}")
        task, greedy, score = self._player()
        path = self._target(task.name)
        tenth = -(-self.count // 10)

        def say(done: int) -> None:
            if done % tenth == 0 or done == self.count:
                print(f"{task.name}: {done} of {self.count} games", flush=True)

        bundle = make_bundle(
            task,
            greedy,
            policy=self.policy,
            command=command(),
            count=self.count,
            epsilon=self.epsilon,
            seed=self.seed,
            card_score=score,
            threads=self.threads,
            on_episode=say,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write(bundle, path)
        different = len({s.hashes[task.obs_profile] for s in bundle.starts})
        steps = sorted(len(s.actions) for s in bundle.starts)
        print(
            f"{path}: {len(steps)} starts, {different} of them different, after {steps[0]} to {steps[-1]} "
            f"control steps (median {steps[len(steps) // 2]}) of games that scored {bundle.origin.score:.1f} on average"
        )
        return 0

    def _player(self) -> tuple[Any, Any, float | None]:
        """The task, its greedy policy (None for random), and the score on a teacher's card."""
        from polydistill.envs.suite import resolve_task
        from polydistill.policies import load_policy
        from polydistill.teachers.zoo import CARD, load_teacher

        if self.policy == "random":
            return resolve_task(self.task), None, None
        folder = Path(self.policy)
        policy = load_policy(folder, self.device)
        greedy = policy.greedy(self.task)
        score = load_teacher(folder).score("noop") if (folder / CARD).is_file() else None
        return policy.suite.tasks[policy.suite.index(self.task)], greedy, score

    def _target(self, task: str) -> Path:
        """Where the bundle goes, found fit before anything is played."""
        from polydistill.evaluation.start_files import file_name
        from polydistill.outputs import require_file

        path = self.out or Path("starts") / file_name(task)
        if path.is_dir():
            raise UserError(f"--out {path} is a folder: name a file, for example {path / file_name(task)}")
        require_file(path)
        if path.exists() and not self.overwrite:
            raise UserError(f"{path} is there already: add --overwrite to replace it, or name another --out")
        folder = next(p for p in path.parents if p.exists())
        if not folder.is_dir():
            raise UserError(f"--out {path}: {folder} is a file")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"cannot write to --out {path}: {folder} is not writable")
        return path
