"""A student's network as one task's Q-network: what reinforcement learning starts from after a distillation.

Parisotto et al. (2016, section 5.2) go on from an Actor-Mimic network with DQN. In the authors' code nothing of it is
drawn anew: its 18 outputs are read as values, and those of actions that a game lacks take no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from polydistill import nets
from polydistill.errors import UserError
from polydistill.nets.encoders import make_torso
from polydistill.nets.student import Student
from polydistill.settings import Settings
from polydistill.tasks import Suite, Task


class Body(Settings):
    """What rebuilds a student's network for one task.

    Attributes:
        kind, options: As :func:`polydistill.nets.make` takes them.
        torso: What rebuilds the task's torso, where the network takes torsos from outside.
    """

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)
    bf16: bool = False
    torso: dict[str, Any] | None = None


class BodyNetwork(nn.Module):
    """A student of one task whose outputs are read as the values of the task's own actions.

    Input ``[B, *obs_shape]``; output float32 ``[B, n_actions]``. All of it learns.

    Raises:
        UserError: unknown network or option.
    """

    def __init__(self, task: Task, body: Body):
        super().__init__()
        try:
            torsos = None if body.torso is None else [make_torso(task, **body.torso)]
            self.student: Student = nets.make(
                body.kind, Suite((task,)), bf16=body.bf16, torsos=torsos, **body.options
            ).requires_grad_(True)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise UserError(f"network {body.kind} with {body.options} cannot be built ({error!s:.200})") from error
        self.register_buffer("own", torch.tensor(self.student.suite.actions[0]), persistent=False)

    def encode(self, obs: Tensor) -> Tensor:
        """Last hidden activations float32 ``[B, D]``, after the ReLU."""
        return self.student.hidden(obs, 0)

    def last_hidden(self, features: Tensor) -> Tensor:
        """What :meth:`encode` gives is the last hidden layer already."""
        return features

    def head(self, features: Tensor) -> Tensor:
        """``[B, D] -> float32 [B, n_actions]``."""
        return self.student.logits(features[None], [0])[0].index_select(1, self.get_buffer("own"))

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.encode(obs))


def body_of(student: Student, config: Mapping[str, Any], row: int) -> Body:
    """What rebuilds one task's part of a saved student.

    Args:
        config: Its ``config.json``.
        row: The task's row in the student's suite.
    """
    options: dict[str, Any] = dict(student.description())
    if "train_convs" in options:
        options["train_convs"] = True  # torsos that a distillation kept as they were learn now
    if "torso_bf16" in options:
        options["torso_bf16"] = [options["torso_bf16"][row]]
    torsos = config.get("torsos")
    return Body(kind=config["kind"], options=options, bf16=student.bf16, torso=None if torsos is None else torsos[row])


def weights_of(student: Student, row: int) -> dict[str, Tensor]:
    """A student's tensors under the names that they have in a network of the task at ``row`` alone."""
    one: dict[str, Tensor] = {}
    lists = {name: _place(student, name, module, row) for name, module in _lists(student)}
    for name, tensor in student.state_dict().items():
        kept: str | None = name
        for prefix, place in lists.items():
            if name.startswith(f"{prefix}."):
                index, _, rest = name.removeprefix(f"{prefix}.").partition(".")
                kept = f"{prefix}.0.{rest}" if int(index) == place else None
        if kept is not None:
            one[kept] = tensor
    return one


def _lists(student: Student) -> list[tuple[str, nn.ModuleList]]:
    """Lists with a module for each task, or for each kind of observation."""
    found = [(name, m) for name, m in student.named_modules() if isinstance(m, nn.ModuleList)]
    return [(name, m) for name, m in found if _kinds(student, name) is not None or len(m) == len(student.suite)]


def _kinds(student: Student, name: str) -> Sequence[int] | None:
    parent, _, own = name.rpartition(".")
    return getattr(student.get_submodule(parent), "of_task", None) if own == "torsos" else None


def _place(student: Student, name: str, module: nn.ModuleList, row: int) -> int:
    kinds = _kinds(student, name)
    return row if kinds is None else kinds[row]


def last_layer(net: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the layer that gives the outputs: the last linear one."""
    return [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear)][-1]


def output_meanings(student: Student, row: int) -> tuple[str, ...]:
    """What the outputs of one task's last layer are for: the whole axis, or the actions that the layer was made for."""
    places = getattr(student, f"axis_{row}", None)  # networks with outputs for each task note where these belong
    axis = student.suite.axis
    return axis if places is None else tuple(axis[int(i)] for i in places)


def trained_meanings(student: Student, row: int) -> tuple[str, ...]:
    """Those of :func:`output_meanings` that a task had while the student was trained.

    A layer of its own was trained on its task alone; a shared one on the tasks of the whole suite.
    """
    own = hasattr(student, f"axis_{row}")
    tasks = student.suite.tasks[row : row + 1] if own else student.suite.tasks
    used = {m for t in tasks for m in t.action_meanings}
    return tuple(m for m in output_meanings(student, row) if m in used)
