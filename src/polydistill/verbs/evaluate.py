"""``polydistill evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from polydistill.errors import UserError
from polydistill.verbs.base import File, Int, Switch, flag


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

    def run(self) -> int:
        """Exit code."""
        import json

        from polydistill.evaluating import evaluate
        from polydistill.evaluation.remembering import PROTOCOL
        from polydistill.evaluation.scores import format_drawn, format_table, to_json

        if not self.policies:
            raise UserError("nothing to evaluate: name a run or a teacher's folder")
        found = []
        for path in self.policies:
            done = evaluate(
                path,
                protocol=self.protocol,
                starts=self.starts,
                episodes=self.episodes,
                steps=self.steps,
                device=self.device,
            )
            told = {"policy": str(path), **json.loads(to_json(done.summary))}
            if done.distilled is not None:
                told["distilled"] = json.loads(to_json(done.distilled))["tasks"]
            found.append(told)
            if not self.json:
                drawn = done.summary.protocol["name"] == PROTOCOL
                table = format_drawn(done.summary, done.distilled) if drawn else format_table(done.summary)
                print(f"{path}\n{table}\n", flush=True)
        if self.json:
            print(json.dumps(found[0] if len(found) == 1 else found, indent=2))
        return 0
