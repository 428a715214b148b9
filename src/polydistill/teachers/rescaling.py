"""Trained layers as large as fresh ones, in a network that computes the same.

Optimisers like Adam move every weight by about the learning rate, however large it is, so a long distillation that let
the weights grow leaves a network that the next learner hardly moves (van Laarhoven 2017, arXiv 1706.05350, of layers in
front of a normalisation). A layer's size is free, though: normalisation takes any factor out again, and through a ReLU
it can be handed to the next layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

Norm = nn.LayerNorm | nn.GroupNorm
TOLERANCE = 0.02  # a normalisation's epsilon is not scaled, and bfloat16 has steps of 0.004


@torch.no_grad()
def rescale(net: nn.Module, last: str, sizes: Mapping[str, float], obs: Tensor) -> tuple[float, tuple[str, ...]]:
    """Bring each layer before the ``last`` to about its given size, and keep what the network computes.

    Factors are powers of two: nothing is rounded, and sizes come within a factor of 1.42. A network whose answer they
    would change, one with a tanh for example, stays as it is.

    Args:
        last: Name of the last layer. What it answers is the same once its weights are multiplied by the result; this
            is left to the caller, as its rows may be new.
        sizes: Name of each layer -> Euclidean norm of its weights.
        obs: Some observations ``[B, *obs_shape]``, to see the order of the layers and to compare answers.

    Returns:
        What the last layer's weights have to be multiplied by, and the names of the layers that are not as large as
        they were; 1 and none for a network that stays as it is.
    """
    before = {k: v.clone() for k, v in net.state_dict().items()}
    answer = net(obs)
    names = {m: n for n, m in net.named_modules()}
    order = _order(net, obs)
    carried, changed = 1.0, []
    for module, after in pairwise(order):
        if isinstance(module, Norm) or names[module] == last:
            continue
        weight, bias = module.get_parameter("weight"), module.bias
        factor = _power_of_two(sizes[names[module]], carried * float(weight.norm()))
        if carried * factor != 1:
            changed.append(names[module])
        weight.mul_(carried * factor)
        if isinstance(bias, Tensor):
            bias.mul_(factor)
        carried = 1.0 if isinstance(after, Norm) else 1 / factor
    top = net.get_submodule(last).get_parameter("weight")
    top.mul_(carried)
    same = float((net(obs) - answer).abs().max()) <= TOLERANCE * float(answer.abs().max())
    top.div_(carried)
    if same and len(set(order)) == len(order):
        return carried, tuple(changed)
    net.load_state_dict(before)
    return 1.0, ()


def sizes(net: nn.Module) -> dict[str, float]:
    """Name of each layer -> Euclidean norm of its weights, as :func:`rescale` takes them."""
    return {n: float(m.get_parameter("weight").detach().norm()) for n, m in net.named_modules() if _has_weights(m)}


def _order(net: nn.Module, obs: Tensor) -> list[nn.Module]:
    """Layers and normalisations as they are called."""
    called: list[nn.Module] = []
    hooks = [
        m.register_forward_hook(lambda module, args, out: called.append(module))
        for m in net.modules()
        if isinstance(m, Norm) or _has_weights(m)
    ]
    try:
        net(obs)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _has_weights(module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False)).get("weight")
    return own is not None and own.dim() > 1


def _power_of_two(wanted: float, found: float) -> float:
    return float(2.0 ** round(math.log2(wanted / found))) if min(wanted, found) > 0 else 1.0
