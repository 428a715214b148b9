"""Recipes: one YAML file per experiment, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, model_validator

from polydistill.algorithms.policy_distillation import OverActions
from polydistill.errors import UserError
from polydistill.evaluation.protocol import Name as ProtocolName
from polydistill.nets.sizes import SIZES, resolve_student
from polydistill.plugins import nearest
from polydistill.settings import Settings
from polydistill.teachers.zoo import Network
from polydistill.training.behaviour import Behaviour
from polydistill.training.distil import Schedule
from polydistill.training.learner import Refresh


class StudentSettings(Settings):
    """Which network. ``options`` are the network's own, e.g. ``widths`` of task_torsos.

    ``kind`` may be the name of a size too, e.g. ``net1``, which ``options`` go on top of: what is kept is the network.
    """

    kind: str = "task_torsos"
    options: dict[str, Any] = Field(default_factory=dict)
    bf16: bool | None = None  # None: where it pays on this machine

    @model_validator(mode="before")
    @classmethod
    def _network(cls, values: Any) -> Any:
        kind, options = (values.get("kind"), values.get("options", {})) if isinstance(values, Mapping) else (None, None)
        if not (isinstance(kind, str) and kind in SIZES and isinstance(options, Mapping)):
            return values  # a network's own name, or what pydantic refuses
        network, chosen = resolve_student(kind, options)
        return {**values, "kind": network, "options": chosen}


class FeatureSettings(Settings):
    """Actor-Mimic's feature term (Parisotto et al. 2016, eqs. 5, 6): ``beta`` times the squared distance between the
    teacher's features and a linear projection of the student's; ``half``: times 1/2, as in the authors' code."""

    beta: float = Field(0.01, ge=0)
    half: bool = True


class ObjectiveSettings(Settings):
    """Which loss; the temperature divides the teacher's Q-values. ``features``: their regression too; None: not.

    ``over_actions``: ``mean`` divides the loss by the number of the task's actions, as Yin & Pan's eq. 5 does the
    priority; the loss of the papers is ``sum``.
    """

    loss: Literal["kl", "nll", "mse", "cross_entropy", "reverse_kl", "js", "huber"] = "kl"
    temperature: float = Field(0.01, gt=0)
    over_actions: OverActions = "sum"
    features: FeatureSettings | None = None


class MemorySettings(Settings):
    """Per task at most ``capacity`` experiences; all tasks together at most ``size`` bytes.

    ``beta``, the exponent of the importance weights, goes linearly to ``beta_end`` over the run (Schaul et al. 2016).
    ``cache_features``: keep what the student's frozen torsos make of each observation, so that learning need not ask
    them again: about three times the updates per second for 6.3 kB more per Atari experience.
    ``measure_steps``: control steps of the teacher's play that give the range of its values to a sampler that asks;
    ``measure_epsilon``: the share of random actions meanwhile.
    ``refresh``: drawn samples get the priority they had ``before`` the update, which costs nothing, or ``after`` it:
    one forward pass more.
    """

    capacity: int = Field(500_000, ge=1)
    size: str = "8GB"
    sampler: str = "uniform"
    options: dict[str, Any] = Field(default_factory=dict)
    beta: float = Field(0.5, ge=0, le=1)
    beta_end: float = Field(1.0, ge=0, le=1)
    measure_steps: int = Field(50_000, ge=1)
    measure_epsilon: float = Field(0.05, ge=0, le=1)
    refresh: Refresh = "before"
    cache_features: bool = False


class LearnerSettings(Settings):
    """Samples per task and update, and the optimiser.

    ``max_learning_rate`` fixes RMSProp's eps = (lr / max lr)^2. ``actor_mimic_adam`` is the Adam of Actor-Mimic's code.
    Over the first ``warmup_updates`` the learning rate grows linearly: while a network knows nothing yet but how often
    each action is taken, large steps drive its ReLUs out of their inputs' range, and they never come back.
    """

    batch_size: int = Field(32, ge=1)
    optimizer: Literal["rmsprop", "adam", "actor_mimic_adam"] = "rmsprop"
    learning_rate: float = Field(2.5e-4, gt=0)
    max_learning_rate: float = Field(2.5e-3, gt=0)
    warmup_updates: int = Field(0, ge=0)
    anneal: bool = False
    max_grad_norm: float | None = Field(None, gt=0)


class EvaluationSettings(Settings):
    """``every`` updates a short evaluation of ``episodes``; at the end a full one of ``final_episodes``.

    ``inspect``: afterwards look for the states where the student is worse, record a video, embed its activations.
    """

    every: int = Field(25_000, ge=0)
    episodes: int = Field(10, ge=1)
    final_episodes: int = Field(30, ge=1)
    protocol: ProtocolName = "noop"
    inspect: bool = True


class DistillRecipe(Settings):
    """Everything a distillation depends on, beside the code and the machine."""

    teachers: tuple[str, ...] = Field(min_length=1)
    student: StudentSettings = StudentSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    behaviour: Behaviour = Behaviour()
    memory: MemorySettings = MemorySettings()
    learner: LearnerSettings = LearnerSettings()
    schedule: Schedule = Schedule()
    evaluation: EvaluationSettings = EvaluationSettings()
    seed: int = Field(1, ge=0, lt=100_000)
    device: str = "auto"
    threads: int = Field(0, ge=0)


class TeachEvaluation(Settings):
    """Control steps between evaluations, their episodes, and those behind the score on the card."""

    every: int = Field(250_000, ge=1)
    episodes: int = Field(10, ge=1)
    final_episodes: int = Field(100, ge=1)


class TeachRecipe(Settings):
    """How a teacher is trained. ``settings`` are the algorithm's own; ``per_task`` overrides anything for one game.

    ``profile`` is how pixels of Atari games are made (:class:`~polydistill.tasks.Task`).
    """

    algorithm: Literal["pqn", "dqn"]
    total_steps: int = Field(ge=1)
    network: Network = Network()
    settings: dict[str, Any] = Field(default_factory=dict)
    evaluation: TeachEvaluation = TeachEvaluation()
    sticky: float = Field(0.0, ge=0, lt=1)
    profile: Literal["ale", "nature"] = "ale"
    per_task: dict[str, dict[str, Any]] = Field(default_factory=dict)


S = TypeVar("S", bound=Settings)


def shipped(folder: str = "") -> dict[str, str]:
    """Names of the recipes that come with the package -> their text."""
    here = files("polydistill").joinpath("recipes", folder)
    return {p.name.removesuffix(".yaml"): p.read_text() for p in here.iterdir() if p.name.endswith(".yaml")}


def read(name: str, folder: str = "") -> tuple[dict[str, Any], str]:
    """A recipe's mapping and where it came from; ``name`` is a path to a YAML file or a shipped recipe.

    Raises:
        UserError: no such recipe, or not a YAML mapping.
    """
    path = Path(name)
    known = shipped(folder)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError(f"no recipe file {path}; shipped recipes: {', '.join(sorted(known))}")
        text, where = _text(path), str(path)
    elif name in known:
        text, where = known[name], f"recipe {name}"
    else:
        raise UserError(f"unknown recipe {name!r}: {nearest(name, sorted(known))}")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{where}: not valid YAML ({problem})") from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: a recipe is a mapping of settings, found {type(content).__name__}")
    return content, where


def resolve(model: type[S], content: Mapping[str, Any], where: str, overrides: Mapping[str, Any] | None = None) -> S:
    """Apply dotted overrides (``learner.batch_size``: 64) and validate.

    Raises:
        UserError: unknown key or impossible value, from the recipe or an override.
    """
    merged = _copy(content)
    for key, value in (overrides or {}).items():
        *path, last = key.split(".")
        node = merged
        for depth, part in enumerate(path, 1):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
            if not isinstance(node, dict):
                group = ".".join(path[:depth])
                raise UserError(f"{where}: {group} is not a group of settings, so {key} cannot be set")
        node[last] = value
    return model.parse(merged, where)


def parse_assignment(text: str) -> tuple[str, Any]:
    """``learner.batch_size=64`` -> key and YAML value.

    Raises:
        UserError: there is no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text!r}: write key=value, for example learner.batch_size=64")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {text!r}: the value is not YAML") from None


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted ones: what :func:`resolve` takes as overrides."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= dotted(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def require_same(path: Path, settings: Settings, free: Sequence[str]) -> None:
    """Refuse to continue a run under other settings than those in its ``recipe.yaml``.

    Args:
        free: Settings, and groups of settings, that may differ.

    Raises:
        UserError: naming the first setting that differs.
    """
    if not path.is_file():
        return
    try:
        saved = yaml.safe_load(_text(path))
    except yaml.YAMLError:
        saved = None
    if not isinstance(saved, dict):
        raise UserError(f"{path}: damaged; start a new run")
    # Parsed, so that a setting newer than the run has its default.
    before = dotted(type(settings).parse(saved, str(path)).model_dump(mode="json"))
    now = dotted(settings.model_dump(mode="json"))
    for key in sorted(before.keys() | now.keys()):
        fixed = key not in free and key.split(".")[0] not in free
        if fixed and before.get(key) != now.get(key):
            found = f"{key} is {now.get(key)!r}, but the run in {path.parent} has {before.get(key)!r}"
            raise UserError(f"--resume: {found}; use the same settings or another --out")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None


def _copy(node: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in node.items()}
