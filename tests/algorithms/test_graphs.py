"""Captured steps. A CPU has no CUDA graphs, so :class:`Tape` stands in for one: it keeps the operations of a call with
the very tensors and numbers they had, and replays those alone, without the Python around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polydistill.algorithms import dqn, graphs, pqn, rollout
from polydistill.algorithms.dqn import DQN, DQNSettings
from polydistill.algorithms.graphs import WARM_UP, Graphed, upload
from polydistill.algorithms.pqn import PQN, PQNSettings
from polydistill.algorithms.rollout import Rollout
from polydistill.devices import device_of
from polydistill.envs.base import Step
from polydistill.envs.suite import make_env, resolve_task
from polydistill.rng import seeded_init
from polydistill.tasks import Task
from polydistill.teachers.zoo import Network, build_network

CATCH = resolve_task("catch")
SCREENS = Task(name="screens", kind="screens", action_meanings=("LEFT", "NOOP", "RIGHT"), obs_shape=(4, 84, 84))


class Screens:
    """Random pixels; episodes of at most 5 control steps, every third of them cut off rather than ended."""

    def __init__(self, copies: int):
        self.task, self.num_envs = SCREENS, copies

    def reset(self, seed: int) -> np.ndarray:
        self._rng, self._t = np.random.default_rng(seed), 0
        return self._look()

    def _look(self) -> np.ndarray:
        return self._rng.integers(0, 256, (self.num_envs, *SCREENS.obs_shape), np.uint8)

    def step(self, actions: np.ndarray) -> Step:
        self._t += 1
        last = (self._t + np.arange(self.num_envs)) % 5 == 0
        cut = last & (np.arange(self.num_envs) % 3 == 0)
        reward = (actions == self._t % 3).astype(np.float32)
        return Step(self._look(), reward, last & ~cut, cut, self._look() if last.any() else None, np.zeros_like(last))

    def close(self) -> None: ...


class Tape(TorchDispatchMode):
    """Every operation of a call, those of its backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], Any]] = []
        self.outputs: list[Any] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs or {})):
            if isinstance(tensor, Tensor) and (at := tensor.untyped_storage().data_ptr()) not in self._made:
                whole = tensor.untyped_storage()
                self._before.setdefault(at, (whole, whole.clone()))
        out = func(*args, **(kwargs or {}))
        self._made |= {t.untyped_storage().data_ptr() for t in tree_leaves(out) if isinstance(t, Tensor)} - {
            *self._before
        }
        self.operations.append(lambda: func(*args, **(kwargs or {})))
        self.outputs.append(out)
        return out

    def undo(self) -> None:
        """A capture runs nothing: what was there before is as it was."""
        for storage, kept in self._before.values():
            storage.copy_(kept)

    @torch.no_grad()
    def replay(self) -> None:
        """Every result goes where it went at the capture."""
        for operation, out in zip(self.operations, self.outputs, strict=True):
            for new, old in zip(tree_leaves(operation()), tree_leaves(out), strict=True):
                if isinstance(new, Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


class TapeRecorder:
    def __init__(self) -> None:
        self.eager_calls = self.captures = 0

    def eager(self, call: Callable[[], Any]) -> Any:
        self.eager_calls += 1
        return call()

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        self.captures += 1
        tape = Tape()
        with tape:
            result = call()
        tape.undo()
        return tape.replay, result


def test_every_call_is_made_once_and_python_is_left_out_of_a_replay() -> None:
    total, asked = torch.zeros(2), list[int]()

    def add(x: Tensor) -> Tensor:
        asked.append(len(asked))
        total.add_(x * len(asked))  # a number of Python's: the capture's stays
        return total + 0

    recorder = TapeRecorder()
    step = Graphed(add, recorder)
    seen = [step(torch.tensor([1.0, 10.0])).tolist() for _ in range(3)]
    assert seen == [[1, 10], [3, 30], [6, 60]]
    first = step(torch.tensor([1.0, 2.0]))  # the fourth: captured, then replayed
    assert first.tolist() == [10, 68]
    assert step(torch.tensor([100.0, 0.0])).tolist() == [410, 68]
    assert first.tolist() == [410, 68]  # the graph's own tensor
    assert (len(asked), recorder.eager_calls, recorder.captures) == (WARM_UP + 1, WARM_UP, 1)
    assert step(torch.tensor([1.0])).tolist() == [415, 73]  # another shape: eagerly, with Python's present number
    assert (len(asked), recorder.eager_calls, recorder.captures) == (5, WARM_UP + 1, 1)
    assert step(torch.tensor([0.0, 1.0])).tolist() == [415, 77]


def test_what_cannot_be_captured_goes_on_eagerly_and_says_so() -> None:
    class Broken(TapeRecorder):
        def capture(self, call: Any) -> Any:
            self.captures += 1
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    recorder, total = Broken(), torch.zeros(())
    step = Graphed(lambda x: total.add_(x).clone(), recorder)
    for _ in range(WARM_UP):
        step(torch.ones(()))
    with pytest.warns(UserWarning, match=r"no CUDA graph, training is slower: operation not permitted .* capturing$"):
        assert step(torch.ones(())) == WARM_UP + 1
    assert step(torch.ones(())) == WARM_UP + 2
    assert (recorder.captures, recorder.eager_calls) == (1, WARM_UP + 2)


def test_on_a_cpu_the_function_is_called_as_it_is() -> None:
    array = np.arange(3.0)
    assert upload(array, "cpu").data_ptr() == array.ctypes.data
    same = graphs.graphed(lambda x: x, "cpu")
    x = torch.zeros(1)
    assert all(same(x) is x for _ in range(2 * WARM_UP))


NETWORKS = {
    "catch": Network(hidden=16, norm=True),
    "screens": Network(channels=(4, 4, 4), hidden=16, norm=True, bf16=True),
}
FAST = PQNSettings(num_envs=8, rollout=6, minibatch=20, epochs=2, learning_rate=1e-3, warmup_updates=8, advantage=0.3)
NATURE = DQNSettings(num_envs=4, minibatch=8, capacity=200, learning_starts=16, target_period=12, learning_rate=1e-3)


def learner(kind: Any, settings: Any, game: str, device: str = "cpu") -> Any:
    env = Screens(settings.num_envs) if game == "screens" else make_env(CATCH, settings.num_envs)
    with seeded_init(5):
        net = build_network(env.task, NETWORKS[game], training=True)
    return kind(env, net.to(device), settings, 1_000, 3, device)


def weights_after(made: Any, rounds: int) -> Tensor:
    """All of them, and the metrics of each round."""
    made.report_every = 8  # control steps of DQN's rounds
    told = [list(metrics.values()) for _, metrics in zip(range(rounds), made.run(), strict=False)]
    numbers = torch.tensor([x for values in told for x in values], dtype=torch.float32).nan_to_num(-1.0)
    return torch.cat([numbers, *(p.detach().cpu().flatten() for p in made.net.parameters())])


def taped(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    """Every function that would be a graph on a GPU is one on a tape."""
    used: list[TapeRecorder] = []

    def graphed(function: Any, device: Any) -> Graphed[Any]:
        used.append(TapeRecorder())
        return Graphed(function, used[-1])

    for module in (pqn, dqn):
        monkeypatch.setattr(module, "graphed", graphed)
    return used


@pytest.mark.parametrize("game", ["catch", "screens"])
def test_replayed_pqn_learns_what_the_eager_one_learns(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, though its learning rate changes with every rollout and an epoch's last minibatch is smaller."""

    def trained() -> Tensor:
        made = learner(PQN, FAST, game)
        # as on a GPU: where a graph reads it; float64, or it were another number than Python's
        made.optimizer.param_groups[0]["lr"] = torch.tensor(0.0, dtype=torch.float64)
        found = weights_after(made, 5)
        assert made.updates == 5 * 2 * 3
        assert made.optimizer.param_groups[0]["lr"].item() == pytest.approx(1e-3 * (1 - 240 / 1000))
        return found

    eager = trained()
    used = taped(monkeypatch)
    assert torch.equal(trained(), eager)
    act, aim, update = used
    assert [r.captures for r in used] == [1, 1, 1]
    assert (act.eager_calls, aim.eager_calls) == (3, 3)
    assert update.eager_calls == 3 + 5 * 2  # of 48 rows, 20 + 20 + 8


@pytest.mark.parametrize("more", [{}, {"optimizer": "adam", "double": True}, {"target_period_unit": "updates"}])
@pytest.mark.parametrize("game", ["catch", "screens"])
def test_replayed_dqn_learns_what_the_eager_one_learns(
    game: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = NATURE.model_copy(update=more)
    made = learner(DQN, settings, game)
    eager, updates = weights_after(made, 8), made.updates
    assert updates > 10
    used = taped(monkeypatch)
    assert torch.equal(weights_after(learner(DQN, settings, game), 8), eager)
    assert [(r.captures, r.eager_calls) for r in used] == [(1, 3), (1, 3)]


def test_with_help_the_update_is_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    class Switching:
        """Asked at every update, as the warm-up of a last layer is."""

        def __init__(self) -> None:
            self.begun: list[int] = []

        def begin(self, updates: int) -> None:
            self.begun.append(updates)

        def share(self, steps: int) -> float:
            return 1.0

        def term(self, steps: int, obs: Tensor, q: Tensor) -> Tensor | None:
            return None

    used = taped(monkeypatch)
    for kind, settings, graphs_ in ((PQN, FAST, 2), (DQN, NATURE, 1)):
        used.clear()
        made = learner(kind, settings, "catch")
        made.assist = Switching()
        weights_after(made, 5)
        assert made.assist.begun == list(range(made.updates))
        assert len(used) == graphs_


def test_a_learning_rate_on_the_device_survives_a_checkpoint() -> None:
    made, other = (learner(PQN, FAST, "catch") for _ in range(2))
    for one in (made, other):
        one.optimizer.param_groups[0]["lr"] = torch.tensor(0.0, dtype=torch.float64)
    weights_after(made, 2)
    other.load_state(*made.state())
    weights_after(other, 2)
    assert other.optimizer.param_groups[0]["lr"].item() == pytest.approx(1e-3 * (1 - 192 / 1000))


# ------------------------------------------------------------------ the rollout


@pytest.mark.parametrize("task", [CATCH, SCREENS], ids=["catch", "screens"])
def test_a_rollout_gives_back_what_was_seen(task: Task) -> None:
    kept = Rollout(3, 5, task, "cpu")
    seen = np.random.default_rng(0).integers(0, 256, (4, 5, *task.obs_shape), np.uint8)
    for t, obs in enumerate(seen):
        kept.obs[t].copy_(upload(obs, "cpu"))
    assert np.array_equal(kept.obs.numpy(), seen)
    index = torch.tensor([14, 0, 7, 7])
    batch = kept.batch(index)
    assert np.array_equal(batch.numpy(), seen.reshape(-1, *task.obs_shape)[[14, 0, 7, 7]])
    if task is SCREENS:  # as convolutions read them: nothing is turned round at an update
        for x in (batch, kept.obs[1]):
            assert x.is_contiguous(memory_format=torch.channels_last)


def test_screens_kept_channels_last_teach_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    last = weights_after(learner(PQN, FAST, "screens"), 3)
    monkeypatch.setattr(rollout, "is_screen", lambda task: False)
    assert torch.equal(weights_after(learner(PQN, FAST, "screens"), 3), last)


def test_what_is_learnt_from_a_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a slow twin: Q(lambda) backwards through each copy's steps, one number at a time."""
    settings = FAST.model_copy(update={"expected_epsilon": 0.3, "rollout": 12})
    made, n = learner(PQN, settings, "screens"), settings.num_envs
    monkeypatch.setattr(PQN, "_learn", lambda *args: {"loss": 0.0})
    next(made.run())
    kept, env = made._rollout, Screens(n)
    actions = kept.actions.view(12, n).numpy()
    obs, steps = [env.reset(3)], []
    for row in actions:
        steps.append(env.step(row))
        obs.append(steps[-1].obs)

    def values(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(made.net(torch.from_numpy(x)).double().numpy())

    def worth(q: np.ndarray) -> float:
        return float(0.7 * q.max() + 0.3 * q.mean())

    seen = [values(x) for x in obs]
    for i in range(n):
        after: float | None = None  # what the next step is taught
        for t in reversed(range(12)):
            step, q = steps[t], seen[t][i]
            if step.terminated[i]:
                total = float(step.reward[i])
            elif step.truncated[i]:
                assert step.final_obs is not None
                total = step.reward[i] + 0.99 * worth(values(step.final_obs)[i])
            else:
                onwards = worth(seen[t + 1][i])
                total = step.reward[i] + 0.99 * (onwards if after is None else 0.35 * onwards + 0.65 * after)
            told = kept.target.view(12, n)[t, i].item()
            assert told == pytest.approx(total - 0.3 * (q.max() - q[actions[t, i]]), abs=2e-3), (t, i)
            after = total
    assert sum(s.truncated.sum() for s in steps) > 3 < sum(s.terminated.sum() for s in steps)


# ------------------------------------------------------------------ on a GPU


@pytest.fixture
def _deterministic() -> Iterator[None]:
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    yield
    torch.backends.cudnn.deterministic = before


on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


@pytest.mark.parametrize("game", ["catch", "screens"])
@pytest.mark.parametrize("kind", [PQN, DQN])
class TestGPU:
    pytestmark = on_gpu

    @pytest.mark.usefixtures("_deterministic")
    @pytest.mark.filterwarnings("error:no CUDA graph")
    def test_a_graph_learns_what_eager_updates_learn(
        self, kind: Any, game: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Random play, so that rounding cannot change what is seen; no warning, so that it really is a graph."""
        device = str(device_of("cuda"))
        monkeypatch.setitem(NETWORKS, "screens", NETWORKS["screens"].model_copy(update={"bf16": False}))
        settings = {PQN: FAST, DQN: NATURE.model_copy(update={"optimizer": "adam"})}[kind]
        settings = settings.model_copy(update={"epsilon_end": 1.0})
        replayed = weights_after(learner(kind, settings, game, device), 10)
        for module in (pqn, dqn):
            monkeypatch.setattr(module, "graphed", lambda function, device: Graphed(function, None))
        eager = weights_after(learner(kind, settings, game, device), 10)
        torch.testing.assert_close(replayed, eager, rtol=1e-4, atol=1e-5)

    def test_cpu_and_gpu_learn_alike(self, kind: Any, game: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(NETWORKS, "screens", NETWORKS["screens"].model_copy(update={"bf16": False}))
        base = {PQN: FAST, DQN: NATURE.model_copy(update={"optimizer": "adam"})}[kind]
        settings = base.model_copy(update={"epsilon_end": 1.0})
        made = {where: learner(kind, settings, game, where) for where in ("cpu", str(device_of("cuda")))}
        obs = torch.from_numpy(made["cpu"].env.reset(1) if kind is PQN else made["cpu"].player.env.reset(1))
        told = [one.net(obs.to(where)).detach().cpu() for where, one in made.items()]
        torch.testing.assert_close(told[1], told[0], rtol=1e-4, atol=1e-5)
        if kind is PQN:  # DQN breaks ties and explores with its device's own random numbers
            for one in made.values():
                weights_after(one, 3)
            told = [one.net(obs.to(where)).detach().cpu() for where, one in made.items()]
            torch.testing.assert_close(told[1], told[0], rtol=1e-2, atol=1e-3)
