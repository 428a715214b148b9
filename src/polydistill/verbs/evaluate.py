"""``polydistill evaluate``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from polydistill.errors import UserError
from polydistill.verbs.base import File, Int, Switch, command, flag

if TYPE_CHECKING:
    from polydistill.evaluating import Evaluation


@dataclass(frozen=True)
class Evaluate:
    """Score students (against their teachers), teachers, or Distral's policies over full games with raw scores."""

    policies: Positional[Annotated[tuple[Path, ...], flag("FOLDER ...")]]
    """Runs, exported students or teachers."""
    protocol: Annotated[str | None, flag("noop|sticky|starts|drawn")] = None
    """noop (if not given): 1-30 no-ops, no sticky actions; sticky: repeats the previous action with probability 0.25;
    starts: from positions that another policy reached; drawn (always for Distral's): actions are drawn from the policy,
    and the distilled policy plays every task too."""
    starts: File = None
    """Bundle of starts, or a folder of them; those that come with polydistill if not given."""
    episodes: Int = None
    """Full episodes per task (30; starts: all of the bundle)."""
    steps: Int = None
    """Control steps per task instead."""
    device: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda ..."""
    json: Switch = False
    """Print JSON: one object, or a list of them for several policies."""
    out: Annotated[Path | None, flag("FOLDER")] = None
    """Keep the scores of teachers there, for example results/teachers: scores.csv, commands, a table in README.md."""

    def run(self) -> int:
        """Exit code."""
        import json

        from polydistill.evaluation.scores import to_json

        if not self.policies:
            raise UserError("nothing to evaluate: name a run or a teacher's folder")
        self._look_ahead()
        found, told, started = [], [], []
        for i, path in enumerate(self.policies):
            if len(self.policies) > 1 and sys.stderr.isatty():
                print(f"{path} ({i + 1} of {len(self.policies)}) ...", file=sys.stderr)
            started.append(self._about())
            began = time.monotonic()
            done = self._evaluate(path)
            started[-1]["wall_seconds"] = time.monotonic() - began
            found.append(done)
            told.append(_json(path, json.loads(to_json(done.summary)), done))
            if done.distilled is not None:
                told[-1]["distilled"] = json.loads(to_json(done.distilled))["tasks"]
            if not self.json and (done.teacher is None or len(self.policies) == 1):
                print(f"{path}\n{_text([done])}\n", flush=True)
        teachers = [done for done in found if done.teacher is not None]
        if not self.json and teachers and len(self.policies) > 1:
            print(f"{_text(teachers)}\n", flush=True)
        for note in () if self.json else dict.fromkeys(note for done in found for note in done.notes):
            print(f"note: {note}")
        if self.json:
            print(json.dumps(told[0] if len(told) == 1 else told, indent=2))
        if self.out is not None:
            self._keep(self.out, teachers, started)
        return 0

    def _evaluate(self, path: Path) -> Evaluation:
        from polydistill.evaluating import evaluate

        return evaluate(
            path,
            protocol=self.protocol,
            starts=self.starts,
            episodes=self.episodes,
            steps=self.steps,
            device=self.device,
        )

    def _look_ahead(self) -> None:
        """What would end the work after a part of it was done.

        Raises:
            UserError: one of several is no policy, or ``--out`` cannot keep what will be measured.
        """
        from polydistill.evaluating import is_teacher
        from polydistill.evaluation.teacher_records import require_keepable
        from polydistill.policies import load

        if len(self.policies) > 1:
            for path in self.policies:
                load(path, self.device)
        if self.out is None:
            return
        require_keepable(self.out)
        names = [path.resolve().name for path in self.policies]
        for path, name in zip(self.policies, names, strict=True):
            if not is_teacher(path):
                raise UserError(
                    f"--out keeps the scores of teachers: {path} is none (polydistill record keeps a run's)"
                )
            if names.count(name) > 1:
                raise UserError(f"--out: two teachers are called {name}: keep them one after the other, elsewhere")

    def _about(self) -> dict[str, Any]:
        """Command, commit and machine, for what is kept; nothing if nothing is."""
        from polydistill.devices import device_of
        from polydistill.training.folder import provenance

        return {} if self.out is None else provenance(command(), str(device_of(self.device)))

    def _keep(self, out: Path, teachers: list[Evaluation], about: list[dict[str, Any]]) -> None:
        from polydistill.evaluation.experiment import command_block
        from polydistill.evaluation.teacher_records import keep_scores

        scores = [done.teacher for done in teachers if done.teacher is not None]
        titles = [f"{s.teacher}, {s.protocol}" for s in scores]
        keep_scores(out, scores, [command_block(a, t) for a, t in zip(about, titles, strict=True)])
        if not self.json:
            print(f"kept: {out}")


def _text(found: list[Evaluation]) -> str:
    """One policy's table; or one table of several teachers."""
    from polydistill.evaluation.remembering import PROTOCOL
    from polydistill.evaluation.scores import format_drawn, format_table
    from polydistill.evaluation.teacher_scores import format_teachers

    teachers = [done.teacher for done in found if done.teacher is not None]
    if teachers:
        return format_teachers(teachers, found[0].summary.protocol)
    (done,) = found
    if done.summary.protocol["name"] == PROTOCOL:
        return format_drawn(done.summary, done.distilled)
    return format_table(done.summary)


def _json(path: Path, summary: dict[str, Any], done: Evaluation) -> dict[str, Any]:
    told = {"policy": str(path), **summary, **({"notes": list(done.notes)} if done.notes else {})}
    if done.teacher is not None:
        card = done.teacher.card
        told["card"] = {"score": card if card == card else None, "random_from": done.teacher.random_from}
    return told
