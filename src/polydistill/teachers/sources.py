"""Where weights for a new task come from: any student or teacher of the project, by its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polydistill.errors import UserError
from polydistill.nets.store import CONFIG, load_student
from polydistill.ops.policy import REGRESSIONS
from polydistill.plugins import nearest
from polydistill.tasks import Suite, Task
from polydistill.teachers.bodies import (
    BodyNetwork,
    body_of,
    last_layer,
    output_meanings,
    trained_meanings,
    weights_of,
)
from polydistill.teachers.notes import mapping, objective, teacher_kinds
from polydistill.teachers.rescaling import rescale, sizes
from polydistill.teachers.zoo import CARD, Network, build_network, load_teacher

Head = Literal["keep18", "reinit"]

RECURRENT = "policies.json"  # Distral's: what `training.distral_files` writes


@dataclass(frozen=True)
class Source:
    """A trained network and what is known of it.

    Attributes:
        path: Its folder.
        suite: The tasks it was trained on.
        network: Rebuilds it for one task; by row of the suite.
        weights: The tensors that belong to it, by row of the suite.
        meanings: What the rows of its last layer are for, by row of the suite.
        trained: Those of them that a task it was trained on has, by row of the suite. A layer of Atari's 18 actions
            that all tasks share has rows that no task ever used: they are as they were drawn.
        values: Whether its outputs are Q-values.
        temperatures: Its logits times this are action values but for a constant of each state, by row of the suite. 1
            for Q-values, for logits that were not made from Q-values (another loss, a teacher of logits), and where the
            run does not say.
        recipe: The run's ``recipe.yaml``; empty where there is none.
    """

    path: Path
    suite: Suite
    network: Sequence[Network]
    weights: Sequence[dict[str, Tensor]]
    meanings: Sequence[tuple[str, ...]]
    trained: Sequence[tuple[str, ...]]
    values: bool
    temperatures: Sequence[float]
    recipe: dict[str, Any]

    def row_for(self, task: Task, like: str | None = None) -> int:
        """The source task whose layers ``task`` takes, where tasks have layers of their own.

        It is ``like``, or the task itself, or the first that is shown the same kind of observation.

        Raises:
            UserError: no source task sees what ``task`` shows, or there is no task ``like``.
        """
        names = [t.name for t in self.suite.tasks]
        if like is not None and like not in names:
            raise UserError(f"{self.path} was not trained on {like!r}: {nearest(like, names)}")
        fitting = self.fitting(task)
        chosen = next((name for name in fitting if name == (like or task.name)), None if like else fitting[0])
        if chosen is None:
            raise UserError(f"{self.path}: {like} shows other observations than {task.name}: choose another task")
        return names.index(chosen)

    def fitting(self, task: Task) -> list[str]:
        """The source tasks that are shown the same kind of observation as ``task``. Raises UserError if none is."""
        found = [t.name for t in self.suite.tasks if _seen(t) == _seen(task)]
        if not found:
            raise UserError(
                f"source and target observations differ: {self.path} expects {_words(self.suite.tasks[0])}, found "
                f"{_words(task)} in {task.name}"
            )
        return found

    def profile_for(self, task: Task, like: str | None = None, asked: str | None = None) -> str:
        """How the pixels of ``task``, an Atari game, are to be made for this source; ``task`` may have others.

        It is as the source saw them: its task ``like``, or the task itself, or all of its tasks.

        Args:
            asked: A wish, which is granted where some source task has it.

        Raises:
            UserError: none has what is asked, or nothing is asked and they differ.
        """
        seen = {t.name: t.obs_profile for t in self.suite.tasks if t.kind == "atari"}
        if not seen:
            return asked or task.obs_profile
        told = ", ".join(f"{name} {profile}" for name, profile in seen.items())
        if asked is not None and asked not in seen.values():
            raise UserError(f"profile {asked}: {self.path} has seen other pixels ({told}); leave the setting out")
        mine = {seen[like or task.name]} if (like or task.name) in seen else set(seen.values())
        if asked is None and len(mine) > 1:
            raise UserError(f"{self.path} has seen two kinds of pixels ({told}): choose one with --set profile=ale")
        return asked or mine.pop()

    def network_for(
        self,
        task: Task,
        head: Head,
        scale: float = 1.0,
        like: str | None = None,
        *,
        training: bool = True,
        rescaled: bool = False,
    ) -> Transferred:
        """The network on ``task`` with the source's weights; what is new comes from torch's generator.

        Args:
            head: ``keep18`` keeps the outputs of actions that source and task share by meaning; ``reinit`` draws the
                last layer anew.
            scale: Kept outputs are multiplied by this.
            training: It will learn; else it answers in the precision of :func:`load_teacher`.
            rescaled: Its layers are as large as fresh ones, see :func:`polydistill.teachers.rescaling.rescale`.

        Raises:
            UserError: as :meth:`row_for`.
        """
        row = self.row_for(task, like)
        network = self.network[row]
        net = build_network(task, network, training=training)
        layer, _ = last_layer(net)
        wanted = _meanings(net, task)
        own, fresh = net.state_dict(), sizes(net)
        body = {k: v.to(own[k].dtype) for k, v in self.weights[row].items() if not k.startswith(f"{layer}.")}
        missing = sorted(k for k in own if k not in body and not k.startswith(f"{layer}."))
        if missing:
            raise UserError(f"{self.path}: {missing[0]} of {network} is not among its weights; train it again")
        net.load_state_dict({**own, **body})
        factor, changed = rescale(net, layer, fresh, _examples(task)) if rescaled else (1.0, ())
        new = tuple(m for m in wanted if m not in self.meanings[row]) if head == "keep18" else wanted
        for name, times in ("weight", scale * factor), ("bias", scale):
            theirs = self.weights[row][f"{layer}.{name}"].to(own[f"{layer}.{name}"].dtype)
            for i, meaning in enumerate(wanted):
                if meaning not in new:
                    # into the network: what state_dict holds is its own tensors
                    own[f"{layer}.{name}"][i] = times * theirs[self.meanings[row].index(meaning)]
        own_actions = task.action_meanings
        kept = [m for m in own_actions if m not in new]
        untrained = tuple(m for m in kept if m not in self.trained[row])
        return Transferred(net, network, layer, tuple(m for m in new if m in own_actions), untrained, changed)


@dataclass(frozen=True)
class Transferred:
    """A network on a new task.

    Attributes:
        layer: Name of its last layer.
        new: The task's actions whose outputs are not the source's.
        untrained: Those whose outputs are the source's, which no task of the source ever trained.
        rescaled: Names of the layers that are not as large as the source's.
    """

    net: nn.Module
    network: Network
    layer: str
    new: tuple[str, ...]
    untrained: tuple[str, ...]
    rescaled: tuple[str, ...] = ()


def open_source(path: str | Path) -> Source:
    """A run's student, an exported student or a teacher.

    Raises:
        UserError: nothing of the kind is there, it is damaged, or it is Distral's, whose policies are recurrent.
    """
    folder = Path(path)
    if (folder / CONFIG).is_file():
        return _of_student(folder)
    if (folder / CARD).is_file():
        teacher = load_teacher(folder)
        network = Network.model_validate(teacher.card["network"])
        weights = {k: v.clone() for k, v in teacher.net.state_dict().items()}
        meanings = _meanings(teacher.net, teacher.task)
        suite, trained = Suite((teacher.task,)), [teacher.task.action_meanings]
        return Source(folder, suite, [network], [weights], [meanings], trained, teacher.kind == "q", (1.0,), {})
    if (folder / RECURRENT).is_file():
        raise UserError(
            f"{folder} holds Distral's policies, which are recurrent: a Q-learner has no use for them; name a student "
            "or a teacher"
        )
    if (folder / "run.json").is_file():
        raise UserError(f"{folder} has no student yet: its run was killed or goes on; continue it with --resume")
    raise UserError(f"no policy at {folder}: expected a run, or a teacher's folder such as zoo/pong")


def _of_student(folder: Path) -> Source:
    student = load_student(folder)
    config, recipe = json.loads((folder / CONFIG).read_text()), mapping(folder / "recipe.yaml")
    rows = range(len(student.suite))
    weights = [weights_of(student, g) for g in rows]
    loss, temperature = objective(recipe)
    kinds = teacher_kinds(folder)
    return Source(
        folder,
        student.suite,
        [Network(body=body_of(student, config, g)) for g in rows],
        [{f"student.{k}": v for k, v in own.items()} for own in weights],
        [output_meanings(student, g) for g in rows],
        [trained_meanings(student, g) for g in rows],
        loss in REGRESSIONS or "dqn" in recipe,
        tuple(temperature if kinds.get(t.name, "q") == "q" else 1.0 for t in student.suite.tasks),
        recipe,
    )


def guide(path: str | Path, task: Task) -> tuple[nn.Module, bool]:
    """A frozen policy on ``task``, ``[B, *obs_shape] -> [B, n_actions]``, and whether it gives Q-values.

    Raises:
        UserError: nothing is there, it sees something else, or it lacks one of the task's actions or never learnt it.
    """
    source = open_source(path)
    made = source.network_for(task, "keep18", training=False)
    if made.new:
        raise UserError(f"{path} has no output for {', '.join(made.new)} of {task.name}, so it cannot guide it")
    if made.untrained:
        raise UserError(f"no task of {path} has {', '.join(made.untrained)} of {task.name}, so it cannot guide it")
    return made.net.eval().requires_grad_(False), source.values


def _meanings(net: nn.Module, task: Task) -> tuple[str, ...]:
    return output_meanings(net.student, 0) if isinstance(net, BodyNetwork) else task.action_meanings


def _seen(task: Task) -> tuple[tuple[int, ...], str, str]:
    return task.obs_shape, task.obs_dtype, task.obs_profile


def _examples(task: Task) -> Tensor:
    """Some observations of noise ``[8, *obs_shape]``, the same every time; torch's own generator is left alone."""
    drawn = torch.Generator().manual_seed(0)
    if task.obs_dtype == "uint8":
        return torch.randint(0, 256, (8, *task.obs_shape), dtype=torch.uint8, generator=drawn)
    return torch.randn((8, *task.obs_shape), generator=drawn)


def _words(task: Task) -> str:
    pixels = f" with {task.obs_profile} pixels" if task.kind == "atari" else ""
    return f"{task.obs_dtype} {task.obs_shape}{pixels}"
