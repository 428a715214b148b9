"""``polydistill distral``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from polydistill.errors import UserError
from polydistill.verbs.base import File, Float, Int, Set, Switch, Text, command, flag

TWO_ROOMS = "two-rooms"


@dataclass(frozen=True)
class Distral:
    """Distral (Teh et al. 2017): tasks and a shared policy learn together.

    With the names of tasks that have one set of actions, discrete or continuous, one of the paper's seven agents learns
    them with recurrent networks. With two-rooms, tables learn against separate soft Q-learning: learning curves and
    pictures of pi_0.
    """

    tasks: Positional[Annotated[tuple[str, ...], arg(metavar="TASK ...|two-rooms")]]
    """Tasks, for example doom:mazes-1 doom:mazes-2, or doom:mazes for all of that suite; or two-rooms, the paper's
    tables."""
    out: File = None
    """Folder of the run; results/teh-two-rooms if not given with two-rooms."""
    agent: Annotated[str | None, flag("NAME")] = None
    """A3C, A3C_multitask, A3C_2col, KL_1col, KL+ent_1col, KL_2col or KL+ent_2col (if not given)."""
    steps: Int = None
    """Control steps of each task."""
    beta: Float = None
    """1 / (c_KL + c_Ent), an inverse temperature, above 0."""
    seed: Int = None
    """Root of all randomness."""
    device: Text = None
    """auto, cpu, cuda ..."""
    set: Set = ()
    """Any setting of the run, for example settings.num_envs=16 settings.learning_rate=2e-4."""
    resume: Switch = False
    """Continue from the newest checkpoint in --out."""
    overwrite: Switch = False
    """Replace what is in --out; words in the README of results are kept."""
    seeds: Int = None
    """two-rooms: seeds 0 to N - 1, 20 if not given; every one has goals of its own."""
    rollouts: Int = None
    """two-rooms: rollouts of 10 control steps of each task, 6000 if not given; after each comes a distillation."""
    alpha: Float = None
    """two-rooms: c_KL / (c_KL + c_Ent), from 0 (entropy only) to 1 (KL only, if not given)."""
    goals: Int = None
    """two-rooms: tasks, which differ in their goal; 8 if not given."""
    own_prior: Switch = False
    """two-rooms: a third variant that is not in the paper: every task distils a prior of its own."""

    def run(self) -> int:
        """Exit code."""
        tables = {"--seeds": self.seeds, "--rollouts": self.rollouts, "--alpha": self.alpha, "--goals": self.goals}
        tables["--own-prior"] = self.own_prior or None
        networks: dict[str, Any] = {"--agent": self.agent, "--steps": self.steps, "--seed": self.seed}
        networks |= {"--device": self.device, "--set": self.set or None, "--resume": self.resume or None}
        small = TWO_ROOMS in self.tasks
        if small and len(self.tasks) > 1:
            raise UserError(f"{TWO_ROOMS} stands alone: it has tasks of its own")
        for name, given in (networks if small else tables).items():
            if given is not None:
                raise UserError(f"{name} {'does not go' if small else 'goes only'} with {TWO_ROOMS}: leave it out")
        return self._two_rooms() if small else self._networks()

    def _networks(self) -> int:
        from polydistill.distral_training import UNIT, DistralRecipe, distral
        from polydistill.recipe import parse_assignment, resolve
        from polydistill.training.distral_files import CONFIG
        from polydistill.training.progress import Live

        if self.out is None:
            raise UserError("name a folder for the run: --out runs/distral")
        overrides: dict[str, Any] = dict(parse_assignment(text) for text in self.set)
        given = {"settings.agent": self.agent, "total_steps": self.steps, "settings.beta": self.beta}
        given |= {"seed": self.seed, "device": self.device}
        overrides |= {key: value for key, value in given.items() if value is not None}
        recipe = resolve(DistralRecipe, {"tasks": list(self.tasks)}, "distral", overrides)
        with Live(UNIT) as live:
            outcome = distral(
                recipe,
                self.out,
                resume=self.resume,
                overwrite=self.overwrite,
                command=command(),
                say=live.say,
                show=live.show,
            )
        if not outcome.finished:
            return 130
        width = max(len(name) for name in outcome.scores)
        print(f"{'task':{width}}  {'score':>8}" + ("  distilled policy" if outcome.distilled else ""))
        for name, score in outcome.scores.items():
            alone = f"  {outcome.distilled[name]:16.2f}" if outcome.distilled else ""
            print(f"{name:{width}}  {score:8.2f}{alone}")
        from polydistill.reporting.page import write_report

        print(f"policies: {outcome.folder / CONFIG}; polydistill evaluate {outcome.folder} plays them again")
        print(f"report: {write_report(outcome.folder)}")
        return 0

    def _two_rooms(self) -> int:
        from polydistill.algorithms.tabular.distral import TabularSettings
        from polydistill.evaluation.two_rooms import OWN, VARIANTS, record
        from polydistill.reporting.two_rooms import write
        from polydistill.training.folder import provenance

        seeds, rollouts, goals = self.seeds or 20, self.rollouts or 6_000, self.goals or 8
        alpha, beta = 1.0 if self.alpha is None else self.alpha, 5.0 if self.beta is None else self.beta
        for name, given in (("--seeds", self.seeds), ("--rollouts", self.rollouts), ("--goals", self.goals)):
            if given is not None and given < 1:
                raise UserError(f"{name} {given}: at least 1")
        if not 0 <= alpha <= 1:
            raise UserError(f"--alpha {alpha}: choose from 0 (entropy cost only) to 1 (KL cost only)")
        if not 0 < beta < float("inf"):
            raise UserError(f"--beta {beta}: an inverse temperature, choose above 0, for example 5")
        settings = TabularSettings.parse({"alpha": alpha, "beta": beta, "tasks": goals}, "distral")
        out = self.out or Path("results/teh-two-rooms")
        record(
            out,
            settings,
            range(seeds),
            rollouts,
            [v for v in VARIANTS if self.own_prior or v != OWN],
            overwrite=self.overwrite,
            about=provenance(command(), "cpu"),
            say=lambda text: print(text, flush=True),
        )
        for path in write(out):
            print(path)
        return 0
