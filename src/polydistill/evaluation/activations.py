"""What a student's first and last hidden layers make of its observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from polydistill.nets.encoders import FlatTorso
from polydistill.nets.student import Student

BATCH = 100  # states in one pass

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Softplus, nn.Hardswish,
)  # fmt: skip


@dataclass(frozen=True)
class FirstLayer:
    """The first hidden layer that an observation meets.

    Attributes:
        module: Its output is the layer's activations.
        convolution: Whether its weights are a convolution's.
    """

    module: nn.Module
    convolution: bool


def first_layer(student: Student, obs: Tensor, task: int) -> FirstLayer | None:
    """The first hidden layer of one task, found by watching a pass of ``obs`` ``[B, *obs_shape]``.

    Returns:
        None where no module gives its activations: an activation function that is not a module of its own.
    """
    finished: list[nn.Module] = []

    def watch(module: nn.Module, _: object, __: object) -> None:
        finished.append(module)

    handles = [m.register_forward_hook(watch) for m in student.modules()]
    try:
        student.hidden(obs, task)
    finally:
        for handle in handles:
            handle.remove()
    before: list[nn.Module] = []  # layers with weights so far
    for module in finished:
        if isinstance(module, WEIGHTED):
            before.append(module)
        if len(before) > 1:
            return None
        if before and isinstance(module, (*ACTIVATIONS, FlatTorso)):  # FlatTorso: one layer, its ReLU included
            return FirstLayer(module, not isinstance(before[0], nn.Linear))
    return None


@torch.inference_mode()
def activations(student: Student, obs: np.ndarray, task: int, first: FirstLayer | None) -> tuple[np.ndarray, ...]:
    """First ``[S, F]`` and last ``[S, D]`` hidden activations, float32, of observations ``[S, *obs_shape]``.

    F is 0 without a first layer.
    """
    seen: list[np.ndarray] = []
    hidden: list[np.ndarray] = []
    device = next(student.parameters()).device

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        if len(seen) == len(hidden):  # one module may serve several layers: the first use counts
            seen.append(output.flatten(1).float().cpu().numpy())

    handle = first.module.register_forward_hook(keep) if first else None
    try:
        for at in range(0, len(obs), BATCH):
            batch = torch.from_numpy(obs[at : at + BATCH]).to(device)
            hidden.append(student.hidden(batch, task).float().cpu().numpy())
    finally:
        if handle:
            handle.remove()
    return np.concatenate(seen) if first else np.zeros((len(obs), 0), np.float32), np.concatenate(hidden)
