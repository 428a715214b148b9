"""From a recipe to a teacher in training: what ``build`` and ``api`` are to distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from polydistill.algorithms.dqn import DQN, DQNSettings
from polydistill.algorithms.kickstart import Kickstart, KickstartSettings
from polydistill.algorithms.pqn import PQN, PQNSettings
from polydistill.devices import device_of
from polydistill.envs.base import VecEnv
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError
from polydistill.recipe import TeachRecipe, dotted, read, require_same, resolve
from polydistill.rng import seeded_init
from polydistill.settings import Settings
from polydistill.tasks import Task
from polydistill.teachers.sources import guide
from polydistill.teachers.zoo import build_network
from polydistill.training import checkpoint
from polydistill.training.beginning import CHECKPOINT, find_source, start_from
from polydistill.training.folder import ALONE, RunFolder, provenance, resumed
from polydistill.training.measure import emulator_rate
from polydistill.training.online import Online, Watched
from polydistill.training.shadow import Shadow, ShadowSettings
from polydistill.training.teach import Teaching, Trainer

SETTINGS: dict[str, type[Settings]] = {"pqn": PQNSettings, "dqn": DQNSettings}

PICTURE = "shadow.svg"

SEEDS = 100_000  # of training; a resumed one adds up to as many, and evaluation's begin at a million

#: What a resumed training may change.
RESUMED_WITH = ("settings", "total_steps", "evaluation")


class ShadowedRecipe(TeachRecipe):
    """How a teacher is trained.

    Attributes:
        shadow: Which student follows it (:class:`ShadowSettings`); None: there is none.
        kickstart: Who helps in the beginning (:class:`KickstartSettings`); None: nobody.
    """

    shadow: dict[str, Any] | None = None
    kickstart: dict[str, Any] | None = None


def recipe_for(name: str, task: str, overrides: Mapping[str, Any]) -> ShadowedRecipe:
    """A teaching recipe with its overrides for one task applied.

    Raises:
        UserError: unknown recipe or setting.
    """
    content, where = read(name, "teach")
    general = resolve(ShadowedRecipe, content, where)
    special = dotted(general.per_task.get(task, {}))
    recipe = resolve(ShadowedRecipe, content, where, {**special, **overrides, "per_task": {}})
    SETTINGS[recipe.algorithm].parse(recipe.settings, f"{where}, settings")
    filled: dict[str, Any] = {}
    for key, model in (("shadow", ShadowSettings), ("kickstart", KickstartSettings)):
        group = getattr(recipe, key)
        if group is not None:
            filled[key] = model.parse(group, f"{where}, {key}").model_dump(mode="json")
    return recipe.model_copy(update=filled)


def teach(
    task_name: str,
    out: str | Path,
    *,
    recipe: str = "fast",
    overrides: Mapping[str, Any] | None = None,
    seed: int = 1,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    threads: int = 0,
    start: str | Path | None = None,
    say: Callable[[str], None] = print,
    command: str | None = None,
) -> bool:
    """Train one teacher and write it to ``out``.

    Args:
        task_name: A game's ROM id, or any other task.
        recipe: ``fast``, ``nature`` or a YAML file.
        overrides: Dotted settings, for example ``{"settings.num_envs": 16}``; ``{"shadow.student": "net1"}`` lets a
            small student follow the best network so far, and writes it to ``out/student``.
        threads: Emulator threads; 0: one per core.
        start: A teacher of the same task and network size whose weights training starts from; ``total_steps`` then
            counts from there. None: fresh weights, or with ``resume`` those of a finished teacher in ``out`` that has
            no checkpoint, of which ``total_steps`` counts all.

    Returns:
        True if training came to its end; False if a signal stopped it (a checkpoint is there).

    Raises:
        UserError: bad input; nothing has been written then.
    """
    out = Path(out)
    source = find_source(out, Path(start) if start is not None else None, resume)
    resolved = recipe_for(recipe, resolve_task(task_name).name, overrides or {})
    task = resolve_task(task_name, profile=resolved.profile)
    if source is not None:
        resolved = _explore_as_it_ends(resolved, overrides or {})
    if not 0 <= seed < SEEDS:
        raise UserError(f"--seed {seed}: choose one from 0 to {SEEDS - 1:,}")
    where = device_of(device)
    shadows = _shadows(task, resolved, seed, str(where))
    with seeded_init(seed, "teacher", task.name):
        net = build_network(task, resolved.network, training=True)
    beginning = None
    if source is not None and not (resume and checkpoint.held(out / CHECKPOINT)):
        beginning = start_from(net, task, source, here=resume and source == out)
        if beginning.here and beginning.taken.control_steps >= resolved.total_steps:
            raise UserError(
                f"--resume: the teacher in {out} is finished after {beginning.taken.control_steps:,} control steps: "
                "give more --steps than that, or --start-from it with another --out"
            )
    trainer = make_trainer(task, resolved, net, seed, str(where), threads, shadows)
    folder = RunFolder(out, resume=resume, overwrite=overwrite, teacher=True)
    try:
        if resume:
            _require_same_shadow(folder.path / "recipe.yaml", resolved)
            require_same(folder.path / "recipe.yaml", resolved, RESUMED_WITH)
        info = provenance(command, str(where))
        if resume:
            info = resumed(info, folder.path / "run.json")
        about = {**info, "task": task.to_dict(), **({} if source is None else {"started_from": str(source)})}
        folder.write_json("run.json", about)
        folder.write_yaml("recipe.yaml", resolved.model_dump(mode="json"))
        teaching = make_teaching(
            folder,
            task,
            resolved,
            trainer,
            name=recipe,
            seed=seed,
            info=info,
            device=str(where),
            threads=threads,
            say=say,
        )
        teaching.online = _online(folder, shadows, info, say)
        teaching.evaluate_first = source is not None
        if beginning is not None:
            teaching.begin_from(beginning)
            say(f"{task.name}: goes on from {source} with its {beginning.taken.control_steps:,} control steps")
        if resume and teaching.resume():
            if "settings.epsilon_start" in dotted(overrides or {}) and isinstance(trainer, PQN):
                trainer.epsilon_cap = 1.0  # the user asks for more exploration
            say(f"{task.name}: resumed after {trainer.steps:,} control steps")
        teaching.emulator_rate = _emulator_rate(task, resolved, seed, threads)
        folder.write_json("run.json", {**about, ALONE: round(teaching.emulator_rate)})
        return teaching.drive()
    finally:
        folder.close()


def _emulator_rate(task: Task, recipe: TeachRecipe, seed: int, threads: int) -> float:
    """Control steps per second of the same copies of the game when nobody learns."""
    env = make_env(task, _settings(recipe).num_envs, sticky=recipe.sticky, threads=threads)
    try:
        return emulator_rate(env, seed)
    finally:
        env.close()


def make_teaching(
    folder: RunFolder,
    task: Task,
    recipe: TeachRecipe,
    trainer: Trainer,
    *,
    name: str,
    seed: int,
    info: dict[str, Any],
    device: str,
    threads: int = 0,
    say: Callable[[str], None],
) -> Teaching:
    """A trainer's schedule as its recipe says.

    Args:
        name: The recipe's, for the card.
        info: Command, commit, versions, machine.
        threads: Emulator threads of the evaluations; 0: one per core.
    """
    last = info.get("resumed", [info])[-1]
    sitting = {key: last[key] for key in ("command", "commit", "started", "machine")}
    return Teaching(
        folder=folder,
        task=task,
        network=recipe.network,
        trainer=trainer,
        total_steps=recipe.total_steps,
        card={"recipe": name, "settings": recipe.model_dump(mode="json"), "seed": seed, "trained_with": info},
        phase={"settings": recipe.settings, "total_steps": recipe.total_steps, "seed": seed, **sitting},
        evaluate_every=recipe.evaluation.every,
        evaluation_episodes=recipe.evaluation.episodes,
        final_episodes=recipe.evaluation.final_episodes,
        say=say,
        device=device,
        threads=threads,
    )


def _explore_as_it_ends(recipe: ShadowedRecipe, overrides: Mapping[str, Any]) -> ShadowedRecipe:
    """A trained network knows where to go: no random play at first, unless the user says how much of it."""
    if "settings.epsilon_start" in dotted(overrides):
        return recipe
    return recipe.model_copy(update={"settings": {**recipe.settings, "epsilon_start": _settings(recipe).epsilon_end}})


def _shadows(task: Task, recipe: ShadowedRecipe, seed: int, device: str) -> list[Shadow]:
    """The students that follow: one for each of their seeds."""
    if recipe.shadow is None:
        return []
    follow = ShadowSettings.parse(recipe.shadow, "shadow")
    copies: int = _settings(recipe).num_envs
    return [Shadow(task, follow, copies, seed=s, device=device) for s in follow.seeds or (seed,)]


def _online(
    folder: RunFolder, shadows: list[Shadow], info: dict[str, Any], say: Callable[[str], None]
) -> Online | None:
    if not shadows:
        return None

    def draw() -> None:
        from polydistill.reporting.online import write_online

        write_online([folder.path], folder.path / PICTURE)

    return Online(folder, shadows, info, draw, say)


def _require_same_shadow(path: Path, recipe: ShadowedRecipe) -> None:
    """Refuse to resume with a student where there was none, or without the one there was.

    Raises:
        UserError: naming the student.
    """
    if not path.is_file():
        return
    try:
        saved = yaml.safe_load(path.read_text()).get("shadow")
        before = saved and saved["student"]
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; start a new run") from None
    if recipe.shadow is not None and before is None:
        raise UserError(
            f"--resume: the run in {path.parent} has no shadow student: leave {recipe.shadow['student']} out, or use "
            "another --out"
        )
    if recipe.shadow is None and before is not None:
        raise UserError(f"--resume: the run in {path.parent} has a shadow student: add --shadow-student {before}")


def _settings(recipe: TeachRecipe) -> Any:
    return SETTINGS[recipe.algorithm].parse(recipe.settings, "settings")


def make_trainer(
    task: Task,
    recipe: TeachRecipe,
    net: nn.Module,
    seed: int,
    device: str,
    threads: int,
    shadows: Sequence[Shadow] = (),
) -> Trainer:
    """The learner that trains ``net``: a fresh optimiser, a target network that is a copy of ``net``, and its help.

    Raises:
        UserError: a kickstart's teacher that is missing or does not fit the task.
    """
    settings = _settings(recipe)
    help_ = _kickstart(task, recipe, settings, device)
    env: VecEnv = make_env(task, settings.num_envs, sticky=recipe.sticky, threads=threads)
    if shadows:
        env = Watched(env, [shadow.observe for shadow in shadows])
    maker: Any = {"pqn": PQN, "dqn": DQN}[recipe.algorithm]
    trainer: Trainer = maker(env, net.to(device), settings, recipe.total_steps, seed, device)
    trainer.assist = help_
    return trainer


def _kickstart(task: Task, recipe: TeachRecipe, settings: Any, device: str) -> Kickstart | None:
    group = getattr(recipe, "kickstart", None)
    if group is None:
        return None
    chosen = KickstartSettings.parse(group, "kickstart")
    net, values = guide(chosen.teacher, task)
    return Kickstart(chosen, net.to(device), values, getattr(settings, "learning_starts", 0))
