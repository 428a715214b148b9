"""One step of a learner, captured as a CUDA graph and replayed; on a CPU the same function, called as it is.

A small network's step is some hundred kernels of a few microseconds each, which Python launches more slowly than a GPU
runs them. A graph launches them at once. What it replays is fixed: the tensors it reads and writes, their addresses,
and every number that was Python's at the capture. So such a function

* takes what changes as arguments, or reads tensors that stay where they are;
* changes nothing of Python's (counters, schedules): the replays would not;
* does not wait for the GPU (``.item()``, ``.cpu()``, indexing by a mask).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

WARM_UP = 3  # eager calls before the capture: the optimiser's state, cuDNN's choices and workspaces exist from then on

R = TypeVar("R")


class Recorder(Protocol):
    """How calls are captured; a seam for tests."""

    def eager(self, call: Callable[[], Any]) -> Any:
        """Call it now, as it will be called when it is captured."""

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """Record it without running it: what replays it, and its result, which a replay fills. RuntimeError if not."""


class CudaRecorder:
    """Warm-up and capture on one stream of its own.

    The same one for both: autograd remembers the stream on which it first met a parameter, and a stream that is not
    being captured breaks a capture (pytorch#180090).
    """

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)

    def eager(self, call: Callable[[], Any]) -> Any:
        """See :class:`Recorder`. What follows on the caller's stream waits for it."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = call()
        here.wait_stream(self._stream)
        return result

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """See :class:`Recorder`."""
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        # the outer one goes back to the caller's stream where a capture fails: then the inner one does not
        with torch.cuda.stream(here), torch.cuda.graph(graph, stream=self._stream):
            result = call()
        return graph.replay, result


class Graphed(Generic[R]):
    """A function of tensors that runs as a graph after :data:`WARM_UP` calls. Every call does its work exactly once.

    Inputs of other shapes than the first call's, such as an epoch's last, smaller minibatch, are always run eagerly.

    Args:
        function: See this module's description.
        recorder: None: call it as it is.

    The result belongs to the graph: the next call overwrites it.
    """

    def __init__(self, function: Callable[..., R], recorder: Recorder | None):
        self._function, self._recorder = function, recorder
        self._calls, self._warm_up = 0, float(WARM_UP)
        self._inputs: tuple[Tensor, ...] | None = None
        self._recorded: tuple[Callable[[], object], R] | None = None

    def __call__(self, *inputs: Tensor) -> R:
        recorder = self._recorder
        if recorder is None:
            return self._function(*inputs)
        if self._inputs is None:
            self._inputs = tuple(torch.empty_like(given) for given in inputs)
        fits = all(static.shape == given.shape for static, given in zip(self._inputs, inputs, strict=True))
        if not fits or self._calls < self._warm_up:
            self._calls += fits
            return self._eager(recorder, inputs)
        for static, given in zip(self._inputs, inputs, strict=True):
            static.copy_(given)
        if self._recorded is None:
            fixed = self._inputs
            try:
                self._recorded = recorder.capture(lambda: self._function(*fixed))
            except RuntimeError as error:  # a capture runs nothing, so nothing is half done
                warnings.warn(f"no CUDA graph, training is slower: {str(error).splitlines()[0]}", stacklevel=2)
                self._warm_up = float("inf")
                return self._eager(recorder, inputs)
        replay, result = self._recorded
        replay()
        return result

    def _eager(self, recorder: Recorder, inputs: tuple[Tensor, ...]) -> R:
        result: R = recorder.eager(lambda: self._function(*inputs))
        return result


def graphed(function: Callable[..., R], device: str | torch.device) -> Graphed[R]:
    """``function`` as a graph where the device has graphs."""
    where = torch.device(device)
    return Graphed(function, CudaRecorder(where) if where.type == "cuda" else None)


def upload(array: np.ndarray, device: str | torch.device) -> Tensor:
    """An array on a device; on a CPU a tensor over the same memory.

    A GPU gets it through pinned memory, and nobody waits: the allocator of pinned memory gives a block out again only
    when the copy from it is over.
    """
    tensor = torch.from_numpy(array)
    return tensor if torch.device(device).type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
