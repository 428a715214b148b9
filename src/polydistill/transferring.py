"""From a distilled network to reinforcement learning on a task: what ``polydistill transfer`` does, as a function.

Parisotto et al. (2016, section 5.2) take an Actor-Mimic network as a DQN's first weights; random weights in the same
network are the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field
from torch import nn

from polydistill.algorithms.kickstart import KickstartSettings, Together, Warmup
from polydistill.devices import device_of
from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError
from polydistill.plugins import nearest
from polydistill.recipe import TeachEvaluation, dotted, read, require_same, resolve
from polydistill.rng import seeded_init
from polydistill.settings import Settings
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.sources import Head, Source, open_source
from polydistill.teachers.zoo import Network, build_network, load_teacher
from polydistill.teaching import SETTINGS, ShadowedRecipe, make_teaching, make_trainer, recipe_for
from polydistill.training.folder import RunFolder, now, provenance, resumed
from polydistill.training.transfer_folder import about, write_results

Init = Literal["source", "amn-policy", "amn-feature", "random"]

#: What a resumed run may change.
RESUMED_WITH = ("settings", "total_steps", "evaluation", "against", "device", "threads")

UNNORMED = (
    "warning: parallel Q-learning needs layer normalisation, which this network lacks: use --recipe nature, or on "
    "screens a source that was distilled with --set student.options.norm=true"
)


class HandOver(Settings):
    """How a network that answered with logits becomes one that answers with values.

    Attributes:
        head: ``keep18`` keeps the outputs, as the authors' code does; actions that the task lacks take no part, and
            those that the source has no output for are drawn anew. All 18 outputs of a layer that Atari games share are
            kept, so those of actions that no source game has are what they were before the distillation: random.
            ``reinit`` draws the last layer anew, as the text has it.
        like: The source task whose layers are taken where each task has its own; None: the task itself, or the first
            one with such observations.
        value_scale: Kept outputs are multiplied by this. None: the temperature of the distillation, which divided the
            teacher's values (logits are values / temperature, but for a constant of each state); 1 for networks whose
            outputs are values, and for logits that were not made from values (loss ``nll``, teachers of logits).
        rescale: Layers are brought to the size of freshly drawn ones; the network computes the same. Weights that grew
            in a long distillation would hardly move under the learner's steps. False: as in the paper.
        warmup_updates: For so many updates only the last layer learns, so that the errors of its level do not reach the
            layers that are to be kept. 0 is the paper's. With random weights there is none.
    """

    head: Head = "keep18"
    like: str | None = None
    value_scale: float | None = Field(None, gt=0)
    rescale: bool = True
    warmup_updates: int = Field(500, ge=0)


class TransferRecipe(Settings):
    """Everything a transfer depends on, beside the code and the machine.

    Attributes:
        recipe: Name or file of the teaching recipe that the settings below come from.
        task: What is learnt.
        source: Folder of a run's student or of a teacher; with ``init`` random its network is taken and its weights are
            not.
        init: ``source``: the source's weights. ``amn-policy`` and ``amn-feature`` are the same, and refuse a source
            that was distilled with, or without, feature regression. ``random``: fresh weights.
        against: Folder of a teacher of the task for comparison; it takes no part in the training.
        network: Of a run without a source; None: the source's.
        settings: The learner's (:class:`~polydistill.algorithms.dqn.DQNSettings` or ``PQNSettings``).
        total_steps: Control steps.
        profile: How pixels of an Atari game are made; None: as the source saw them.
        kickstart: See :class:`~polydistill.algorithms.kickstart.KickstartSettings`.
        threads: Emulator threads; 0: one per core.
    """

    recipe: str = "fast"
    task: str
    source: str | None = None
    init: Init = "source"
    hand_over: HandOver = HandOver()
    against: str | None = None
    algorithm: Literal["pqn", "dqn"]
    total_steps: int = Field(ge=1)
    network: Network | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    evaluation: TeachEvaluation = TeachEvaluation()
    sticky: float = Field(0.0, ge=0, lt=1)
    profile: Literal["ale", "nature"] | None = None
    kickstart: dict[str, Any] | None = None
    seed: int = Field(1, ge=0, lt=100_000)
    device: str = "auto"
    threads: int = Field(0, ge=0)


def transfer_recipe(name: str, task: str, overrides: Mapping[str, Any]) -> TransferRecipe:
    """A teaching recipe with a transfer's settings on top.

    Args:
        name: ``fast``, ``nature`` or a YAML file.
        overrides: Dotted settings of :class:`TransferRecipe`.

    Raises:
        UserError: unknown recipe, initialisation or setting, or settings that exclude each other.
    """
    init = overrides.get("init", "source" if overrides.get("source") else "random")
    if init not in get_args(Init):
        raise UserError(f"--init {init}: no such initialisation; {nearest(str(init), get_args(Init))}")
    if overrides.get("source") is None and init != "random":
        raise UserError(f"--init {init} needs a SOURCE, the folder of a run or a teacher")
    if overrides.get("source") is not None and any(key.split(".")[0] == "network" for key in overrides):
        raise UserError("network: it is the source's; leave the setting or the source out")
    content, where = read(name, "teach")
    base = dotted(recipe_for(name, task, {}).model_dump(mode="json", exclude={"shadow", "per_task", "kickstart"}))
    known = {k: v for k, v in base.items() if overrides.get("source") is None or not k.startswith("network.")}
    if overrides.get("source") is not None:
        known["profile"] = None
    chosen = {**known, **overrides, "recipe": name, "task": task, "init": init}
    if content.get("kickstart") is not None:
        chosen = {**dotted(content["kickstart"], "kickstart."), **chosen}
    found = resolve(TransferRecipe, {}, where, chosen)
    settings = SETTINGS[found.algorithm].parse(found.settings, f"{where}, settings").model_dump(mode="json")
    kick = found.kickstart and KickstartSettings.parse(found.kickstart, f"{where}, kickstart").model_dump(mode="json")
    return found.model_copy(update={"settings": settings, "kickstart": kick})


def transfer(
    recipe: TransferRecipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Train one task from a source's weights; write the teacher, its scores and its curve to ``out``.

    Returns:
        True if training came to its end; False if a signal stopped it (a checkpoint is there).

    Raises:
        UserError: bad input; nothing has been written then.
    """
    for path in filter(None, (recipe.source, recipe.against, (recipe.kickstart or {}).get("teacher"))):
        if Path(path).resolve() == Path(out).resolve():
            raise UserError(f"--out {out} is {path}, which the run reads: choose another folder")
    source = open_source(recipe.source) if recipe.source is not None else None
    task, against = _target(recipe, source)
    device = str(device_of(recipe.device))
    net, network, warmup, told = _network(recipe, source, task)
    keys = ("algorithm", "total_steps", "settings", "sticky", "kickstart")
    teach = ShadowedRecipe(**{key: getattr(recipe, key) for key in keys}, network=network, evaluation=recipe.evaluation)
    trainer = make_trainer(task, teach, net, recipe.seed, device, recipe.threads)
    trainer.assist = Together(*filter(None, (warmup, trainer.assist)))
    folder = RunFolder(Path(out), resume=resume, overwrite=overwrite, teacher=True)
    try:
        if resume:
            require_same(folder.path / "recipe.yaml", recipe, RESUMED_WITH)
        info: dict[str, Any] = {
            **provenance(command, device),
            "finished": None,
            **about(task, network, net, recipe, against),
        }
        if resume:
            info = resumed(info, folder.path / "run.json")
        folder.write_json("run.json", info)
        folder.write_yaml("recipe.yaml", recipe.model_dump(mode="json"))
        teaching = make_teaching(
            folder,
            task,
            teach,
            trainer,
            name=recipe.recipe,
            seed=recipe.seed,
            info=info,
            device=device,
            threads=recipe.threads,
            say=say,
        )
        start = {"init": recipe.init, "source": recipe.source, "hand_over": recipe.hand_over.model_dump(mode="json")}
        teaching.card["transfer"] = start
        teaching.evaluate_first = True
        teaching.on_finish = lambda scored: write_results(folder, scored, teaching, recipe.seed, against)
        say(f"{task.name}: {told}")
        if recipe.algorithm == "pqn" and not any(isinstance(m, nn.LayerNorm | nn.GroupNorm) for m in net.modules()):
            say(f"{task.name}: {UNNORMED}")
        if resume and teaching.resume():
            say(f"{task.name}: resumed after {trainer.steps:,} control steps")
        done = teaching.drive()
        if done:
            folder.write_json("run.json", {**info, "finished": now(), "wall_seconds": round(3600 * teaching.hours, 1)})
        return done
    finally:
        folder.close()


def _target(recipe: TransferRecipe, source: Source | None) -> tuple[Task, Teacher | None]:
    """The task with pixels as the source saw them, and the teacher it is compared with.

    Raises:
        UserError: no such task, other pixels than the source saw, or the teacher is of another one.
    """
    against = load_teacher(recipe.against) if recipe.against is not None else None
    task = resolve_task(recipe.task, profile=recipe.profile or "ale")
    if task.kind == "atari" and source is not None:
        profile = source.profile_for(task, recipe.hand_over.like, recipe.profile)
        task = resolve_task(recipe.task, profile=profile)
    if against is not None and against.task != task:
        other = against.task.name if against.task.name != task.name else f"{task.name} with other observations"
        raise UserError(f"--against {recipe.against}: a teacher of {other}, not of {task.name}")
    return task, against


def _network(
    recipe: TransferRecipe, source: Source | None, task: Task
) -> tuple[nn.Module, Network, Warmup | None, str]:
    """The network, what rebuilds it, its warm-up and what to tell."""
    hand = recipe.hand_over
    with seeded_init(recipe.seed, "transfer", task.name):
        if source is None:
            network = recipe.network or Network()
            return build_network(task, network, training=True), network, None, "random weights"
        if recipe.init == "random":
            network = source.network[source.row_for(task, hand.like)]
            told = f"random weights in the network of {source.path}"
            return build_network(task, network, training=True), network, None, told
        require_label(recipe.init, source.path, source.recipe)
        row = source.row_for(task, hand.like)
        scale = source.temperatures[row] if hand.value_scale is None else hand.value_scale
        made = source.network_for(task, hand.head, scale, hand.like, rescaled=hand.rescale)
    told = f"weights of {source.path}, "
    if hand.head == "reinit":
        told += "a new last layer"
    else:
        told += f"outputs kept and multiplied by {scale:g}"
        told += f", but new for {', '.join(made.new)}" if made.new else ""
        told += f"; {', '.join(made.untrained)} as first drawn: no source task has them" if made.untrained else ""
    told += f"; {len(made.rescaled)} layers brought to the size of fresh ones" if made.rescaled else ""
    return made.net, made.network, Warmup(made.net, made.layer, hand.warmup_updates), told


def require_label(init: str | None, source: object, recipe: Mapping[str, Any]) -> None:
    """Refuse a source that is not what the name of the initialisation says.

    Args:
        source: What the message calls it.
        recipe: The settings it was made with.

    Raises:
        UserError: saying what the source is.
    """
    wanted = {"amn-policy": False, "amn-feature": True}.get(init or "")
    if wanted is None:
        return
    objective = recipe.get("objective")
    if not isinstance(objective, dict):
        raise UserError(f"--init {init}: {source} is no distillation; use --init source")
    features = objective.get("features") is not None
    if features != wanted:
        was, other = ("with", "amn-feature") if features else ("without", "amn-policy")
        raise UserError(f"--init {init}: {source} is distilled {was} feature regression; use --init {other}")
