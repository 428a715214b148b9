"""From a recipe to parts: the one place that knows everybody."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polydistill.algorithms.actor_mimic import FeatureRegression, actor_mimic
from polydistill.devices import device_of
from polydistill.envs.suite import make_env
from polydistill.errors import UserError
from polydistill.nets.sizes import make_named
from polydistill.nets.student import Student
from polydistill.nets.task_torsos import TaskTorsos
from polydistill.ops import gradients
from polydistill.ops.policy import REGRESSIONS
from polydistill.ops.value import linear_schedule
from polydistill.optim import AuthorsAdam, DQNRMSprop, eps_for_max_lr
from polydistill.recipe import DistillRecipe, LearnerSettings, MemorySettings
from polydistill.replay import samplers
from polydistill.replay.memory import Memory, make_memory
from polydistill.replay.sizing import Plan, frame_bytes, index_bytes, parse_size, plan_capacity
from polydistill.replay.stacks import Stacks
from polydistill.rng import seeded_init, stream
from polydistill.tasks import Suite, Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import load_teacher, require_teachers
from polydistill.training.collect import Actor, shares_torso
from polydistill.training.distil import Rectangle
from polydistill.training.learner import Learner
from polydistill.training.measure import value_range


@dataclass
class Parts:
    """What a recipe becomes."""

    recipe: DistillRecipe
    suite: Suite
    teachers: list[Teacher]
    student: Student
    device: torch.device
    plan: Plan


def parts(recipe: DistillRecipe, teachers: Sequence[Teacher] | None = None) -> Parts:
    """Teachers, student and memory plan; nothing large is allocated and nothing is written yet.

    Args:
        teachers: Use these instead of loading ``recipe.teachers``.

    Raises:
        UserError: whatever is wrong with the recipe, a teacher, or the machine.
    """
    device = device_of(recipe.device)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if teachers is None:
        require_teachers(recipe.teachers)
    chosen = list(teachers) if teachers is not None else [load_teacher(path) for path in recipe.teachers]
    suite = Suite(tuple(t.task for t in chosen))
    _require_values(recipe, chosen)
    if recipe.objective.features is not None:
        require_features(chosen)
    student = make_student(recipe, suite, chosen, device)
    plan = _plan(recipe, suite, student)
    return Parts(recipe, suite, [t.to(str(device)) for t in chosen], student.to(device), device, plan)


def _require_values(recipe: DistillRecipe, teachers: Sequence[Teacher]) -> None:
    """Refuse teachers with policy logits where Q-values are asked for; a largest logit is the value of nothing."""
    wants = {}
    if recipe.objective.loss in REGRESSIONS:
        wants[f"loss {recipe.objective.loss}"] = "kl"
    if samplers.takes(recipe.memory.sampler, "value_range"):
        wants[f"sampler {recipe.memory.sampler}"] = "the sampler ranked"
    for what, instead in wants.items():
        for teacher in teachers:
            if teacher.kind != "q":
                raise UserError(
                    f"{what} needs Q-values, but the teacher of {teacher.task.name} gives {teacher.kind}: use {instead}"
                )


def require_features(teachers: Sequence[Teacher]) -> list[int]:
    """How many features each teacher has, where all of them show theirs.

    Raises:
        UserError: naming the first that does not.
    """
    lengths = [t.feature_length for t in teachers]
    for teacher, length in zip(teachers, lengths, strict=True):
        if length is None:
            raise UserError(
                f"objective.features: the teacher of {teacher.task.name} shows no features (its network has no "
                "encode and last_hidden); use objective.features=null"
            )
    return [n for n in lengths if n is not None]


def make_student(recipe: DistillRecipe, suite: Suite, teachers: Sequence[Teacher], device: torch.device) -> Student:
    """The recipe's network; one that takes torsos gets copies of the teachers'."""
    settings = recipe.student
    bf16 = settings.bf16 if settings.bf16 is not None else bf16_pays(device)
    options: dict[str, Any] = {"bf16": bf16, "torsos": lambda: copy_torsos(teachers), "where": "student.options"}
    with seeded_init(recipe.seed, "student"):
        return make_named(settings.kind, suite, settings.options, **options)[1]


def copy_torsos(teachers: Sequence[Teacher]) -> list[nn.Module]:
    """The teachers' convolutions, copied; each says in ``bf16`` whether its teacher runs it in bfloat16.

    Raises:
        UserError: a teacher's network has no torso to copy.
    """
    copies = []
    for teacher in teachers:
        torso = getattr(teacher.net, "torso", None)
        if not (isinstance(torso, nn.Module) and hasattr(torso, "features") and hasattr(torso, "description")):
            raise UserError(f"the teacher of {teacher.task.name} has no convolutions to copy: use --student mimic")
        kept = copy.deepcopy(torso)
        setattr(kept, "bf16", bool(getattr(teacher.net, "bf16", False)))  # noqa: B010  (nn.Module's own attributes are typed)
        copies.append(kept)
    return copies


def bf16_pays(device: torch.device) -> bool:
    """Whether this machine multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def actors(parts: Parts, say: Callable[[str], None] = lambda text: None) -> list[Actor]:
    """One actor per task: environments, memory, behaviour.

    Args:
        say: Hears what takes long: a sampler that divides by value has every teacher play first.

    Raises:
        UserError: an environment that cannot be opened, an unknown sampler, or a memory that is too small.
    """
    recipe, tau = parts.recipe, temperatures(parts).flatten().tolist()
    made = []
    for g, task in enumerate(parts.suite.tasks):
        env = make_env(task, recipe.behaviour.num_envs, threads=emulator_threads())
        made.append(
            Actor(
                task=g,
                env=env,
                teacher=parts.teachers[g],
                student=parts.student,
                memory=_memory(parts, g, task, say),
                behaviour=recipe.behaviour,
                rng=stream(recipe.seed, "behaviour", task.name),
                seed=recipe.seed,
                device=parts.device,
                priority=partial(gradients.priority, recipe.objective.loss, tau=tau[g])
                if prioritised(recipe)
                else None,
            )
        )
    return made


def prioritised(recipe: DistillRecipe) -> bool:
    """Whether the recipe's sampler looks at priorities."""
    return samplers.takes(recipe.memory.sampler, "insertion")


def learner(parts: Parts) -> Learner:
    """Objective, optimiser, learning-rate schedule."""
    recipe = parts.recipe
    settings = recipe.learner
    at_once = len(parts.suite) if recipe.schedule.games == "joint" else 1
    regression = feature_regression(parts)
    learning = [p for p in parts.student.parameters() if p.requires_grad]
    learning += regression.parameters() if regression is not None else ()

    return Learner(
        student=parts.student,
        objective=actor_mimic(recipe.objective.loss, regression, recipe.objective.over_actions),
        optimizer=_optimizer(learning, settings, settings.batch_size * at_once),
        learning_rate=learning_rate(settings, recipe.schedule.total_updates),
        max_grad_norm=settings.max_grad_norm,
        beside=regression,
        refresh=recipe.memory.refresh if prioritised(recipe) else "before",
    )


def learning_rate(settings: LearnerSettings, total: int) -> Callable[[int], float]:
    """Updates done so far -> learning rate of the next one: linearly up in the warm-up, linearly down if annealed."""

    def rate(updates: int) -> float:
        grown = min(1.0, (updates + 1) / settings.warmup_updates) if settings.warmup_updates else 1.0
        left = max(0.0, 1 - updates / total) if settings.anneal else 1.0
        return settings.learning_rate * grown * left

    return rate


def feature_regression(parts: Parts) -> FeatureRegression | None:
    """The projections of Actor-Mimic's feature term, freshly made; None where the recipe has none."""
    settings = parts.recipe.objective.features
    if settings is None:
        return None
    blank = torch.zeros(1, *parts.suite.tasks[0].obs_shape, dtype=getattr(torch, parts.suite.tasks[0].obs_dtype))
    with torch.no_grad():
        length = parts.student.hidden(blank.to(parts.device), 0).shape[1]
    with seeded_init(parts.recipe.seed, "projections"):
        made = FeatureRegression(length, require_features(parts.teachers), settings.beta, settings.half)
    return made.to(parts.device)


def temperatures(parts: Parts) -> Tensor:
    """``[G, 1, 1]``: the recipe's temperature for teachers with Q-values, 1 for those with policy logits."""
    tau = [parts.recipe.objective.temperature if t.kind == "q" else 1.0 for t in parts.teachers]
    return torch.tensor(tau, dtype=torch.float32, device=parts.device)[:, None, None]


def rectangle(parts: Parts, made: Sequence[Actor]) -> Rectangle:
    """The minibatch drawer."""
    recipe, valid = parts.recipe, torch.tensor(parts.suite.valid)[:, None]
    begin, end, total = recipe.memory.beta, recipe.memory.beta_end, recipe.schedule.total_updates

    def beta(updates: int) -> float:
        return linear_schedule(updates, begin, end, 0, total)

    features = cached_features(parts)
    experts = None
    if recipe.objective.features is not None:
        experts = [partial(t.features, encoded=features is not None) for t in parts.teachers]
    return Rectangle(made, recipe.learner.batch_size, valid, temperatures(parts), beta, parts.device, features, experts)


def cached_features(parts: Parts) -> list[tuple[int, torch.dtype]] | None:
    """Length and dtype of each task's features, if the recipe wants them kept.

    Raises:
        UserError: the student has no frozen torsos of its teachers, or is not asked while experience is collected.
    """
    if not parts.recipe.memory.cache_features:
        return None
    student = parts.student
    if not parts.recipe.behaviour.needs_student:
        raise UserError("memory.cache_features needs behaviour.who student or mixture: a teacher alone is not shared")
    for g, teacher in enumerate(parts.teachers):
        if not shares_torso(teacher, student, g):
            raise UserError(
                f"memory.cache_features needs the frozen torso of the teacher of {teacher.task.name} in the student: "
                "use student task_torsos with train_convs false"
            )
    assert isinstance(student, TaskTorsos)
    return [(student.torso_features, torch.bfloat16 if low else torch.float32) for low in student.torso_bf16]


def sampler_stream(recipe: DistillRecipe) -> np.random.Generator:
    """The stream that draws minibatches."""
    return stream(recipe.seed, "sampler")


def emulator_threads() -> int:
    """Threads for one vector environment."""
    return len(os.sched_getaffinity(0))


def _optimizer(params: list[nn.Parameter], settings: LearnerSettings, examples: int) -> torch.optim.Optimizer:
    """The papers' eps belongs to gradients summed over a minibatch; ours are means over ``examples``."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(params, lr=settings.learning_rate, fused=True)
    if settings.optimizer == "actor_mimic_adam":
        return AuthorsAdam(params, lr=settings.learning_rate, eps=0.01 / examples**2)
    eps = eps_for_max_lr(settings.learning_rate, settings.max_learning_rate) / examples**2
    return DQNRMSprop(params, lr=settings.learning_rate, eps=eps)


def _experience_bytes(task: Task) -> int:
    return frame_bytes(task) + index_bytes(task.stack, task.n_actions, sampler=0)


def _plan(recipe: DistillRecipe, suite: Suite, student: Student) -> Plan:
    need = max(_experience_bytes(t) for t in suite.tasks)
    if recipe.memory.cache_features and isinstance(student, TaskTorsos):
        need += student.torso_features * (2 if all(student.torso_bf16) else 4)
    wanted, envs = recipe.memory.capacity, recipe.behaviour.num_envs
    plan = plan_capacity(parse_size(recipe.memory.size), len(suite), need, wanted, partial(_sampler_bytes, recipe))
    if plan.capacity < envs:
        small = "memory.capacity" if plan.capacity == wanted else "--memory"
        raise UserError(
            f"a memory of {plan.capacity:,} experiences cannot hold one step of {envs} environments: give a larger "
            f"{small} or fewer behaviour.num_envs"
        )
    return plan


def _sampler_bytes(recipe: DistillRecipe, capacity: int) -> int:
    memory, options = recipe.memory, dict(recipe.memory.options)
    if samplers.takes(memory.sampler, "value_range") and options.get("value_range") is None:
        options["value_range"] = (0.0, 1.0)  # to be measured: its size is that of any range
    try:
        return samplers.nbytes(memory.sampler, capacity, capacity + recipe.behaviour.num_envs, **options)
    except (TypeError, ValueError) as error:
        raise _misfit(memory, error) from error


def _misfit(memory: MemorySettings, error: Exception) -> UserError:
    return UserError(f"memory.options {memory.options} do not fit {memory.sampler} ({error!s:.200})")


def _measured(parts: Parts, g: int) -> tuple[float, float]:
    """The range of a teacher's values, from ``memory.measure_steps`` control steps of its play."""
    recipe, task = parts.recipe, parts.suite.tasks[g]
    env = make_env(task, 10, threads=emulator_threads())
    try:
        rng = stream(recipe.seed, "measure", task.name)
        memory = recipe.memory
        return value_range(parts.teachers[g], env, memory.measure_steps, rng, recipe.seed, memory.measure_epsilon)
    finally:
        env.close()


def _memory(parts: Parts, g: int, task: Task, say: Callable[[str], None]) -> Memory:
    memory, features = parts.recipe.memory, cached_features(parts)
    options = dict(memory.options)
    if samplers.takes(memory.sampler, "value_range") and options.get("value_range") is None:
        say(f"the teacher plays {memory.measure_steps:,} control steps of {task.name}: the range of its values")
        options["value_range"] = _measured(parts, g)
    stacks = Stacks(task.obs_shape, task.stack, np.dtype(task.obs_dtype), parts.recipe.behaviour.num_envs)
    try:
        return make_memory(
            parts.plan.capacity,
            stacks,
            parts.suite.actions[g],
            len(parts.suite.axis),
            memory.sampler,
            parts.plan.budget_bytes,
            None
            if features is None
            else (features[g][0], np.uint16 if features[g][1] == torch.bfloat16 else np.float32),
            **options,
        )
    except UserError as error:
        raise UserError(f"{task.name}: {error}") from None
    except (TypeError, ValueError) as error:
        raise _misfit(memory, error) from error
