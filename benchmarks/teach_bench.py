"""Training a teacher: control steps per second of ``fast`` against a plain DQN of Stable-Baselines3 and of our own.

All three play the same game and learn on the same threads, each as its users run it: SB3's ``DQN`` with
``make_atari_env`` and the hyper-parameters of its zoo, the bare loop with one copy of ale-py's vector environment, a
ring of observations and one update of 32 transitions every four control steps (as CleanRL's
``dqn_atari`` does), ``fast`` as its recipe says. SB3's row is left out where it is not installed. One more row compares
``fast`` with its own copies of the game when nobody learns. All of it on the CPU, and on a GPU where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from benchmarks.timing import Row, row
from polydistill import build
from polydistill.algorithms.pqn import PQN, PQNSettings
from polydistill.devices import device_of
from polydistill.envs.atari import atari_task
from polydistill.envs.suite import make_env
from polydistill.rng import seeded_init
from polydistill.teachers.zoo import build_network
from polydistill.teaching import recipe_for

GAME = "breakout"
SECONDS = 10.0  # of each side's turn

#: Plays and learns for some seconds; the control steps it made meanwhile.
Side = Callable[[float], int]


def fast(device: str) -> Side:
    """Ours."""
    task = atari_task(GAME, "ale")
    recipe = recipe_for("fast", GAME, {})
    settings = PQNSettings.parse(recipe.settings, "fast")
    with seeded_init(0, "bench"):
        net = build_network(task, recipe.network, training=True).to(device)
    env = make_env(task, settings.num_envs, threads=build.emulator_threads())
    trainer = PQN(env, net, settings, recipe.total_steps, 0, device)
    going = trainer.run()
    next(going)

    def side(seconds: float) -> int:
        first, until = trainer.steps, time.perf_counter() + seconds
        while time.perf_counter() < until:
            next(going)
        return trainer.steps - first

    return side


def plain(device: str) -> Side:
    """One copy, a ring of stacks, an update every four control steps: what a page of PyTorch does."""
    from ale_py.vector_env import AtariVectorEnv

    capacity, rng = 10_000, np.random.default_rng(0)
    env = AtariVectorEnv(GAME, 1, autoreset_mode="SameStep", use_fire_reset=False)
    n = int(env.single_action_space.n)

    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, n),
        ).to(device)  # fmt: skip

    net, target = network(), network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    obs = np.zeros((capacity, 4, 84, 84), np.uint8)
    after = np.zeros_like(obs)
    action, reward, done = np.zeros(capacity, np.int64), np.zeros(capacity, np.float32), np.zeros(capacity, np.float32)
    state = {"obs": env.reset(seed=0)[0], "steps": 0}

    def values(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rows).to(device).float() / 255

    def step() -> None:
        now, k = state["obs"], state["steps"] % capacity
        if rng.random() < 0.05:
            chosen = rng.integers(0, n, 1)
        else:
            with torch.no_grad():
                chosen = net(values(now)).argmax(1).cpu().numpy()
        then, gained, terminated, *_ = env.step(chosen)
        obs[k], after[k], action[k] = now[0], then[0], chosen[0]
        reward[k], done[k] = np.sign(gained[0]), terminated[0]
        state["obs"], state["steps"] = then, state["steps"] + 1

    def learn() -> None:
        i = rng.integers(0, min(state["steps"], capacity), 32)
        with torch.no_grad():
            best = target(values(after[i])).amax(1)
            wanted = torch.from_numpy(reward[i]).to(device) + 0.99 * (1 - torch.from_numpy(done[i]).to(device)) * best
        q = net(values(obs[i])).gather(1, torch.from_numpy(action[i]).to(device)[:, None])[:, 0]
        loss = nn.functional.mse_loss(q, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(1_000):
        step()

    def side(seconds: float) -> int:
        first, until = state["steps"], time.perf_counter() + seconds
        while time.perf_counter() < until:
            step()
            if state["steps"] % 4 == 0:
                learn()
        return state["steps"] - first

    return side


def sb3(device: str) -> Side:
    """Stable-Baselines3."""
    import ale_py
    import gymnasium
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)

    class Until(BaseCallback):
        until = 0.0

        def _on_step(self) -> bool:
            return time.perf_counter() < self.until

    env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs=1, seed=0), n_stack=4)
    model = DQN(
        "CnnPolicy", env, buffer_size=10_000, learning_rate=1e-4, batch_size=32, learning_starts=1_000, train_freq=4,
        gradient_steps=1, target_update_interval=1_000, exploration_fraction=0.1, exploration_final_eps=0.01,
        optimize_memory_usage=False, device=device, seed=0,
    )  # fmt: skip
    model.learn(1_100)

    def side(seconds: float) -> int:
        first, stop = model.num_timesteps, Until()
        stop.until = time.perf_counter() + seconds
        model.learn(10**9, callback=stop, reset_num_timesteps=False)
        return model.num_timesteps - first

    return side


def alone() -> Side:
    """The copies of ``fast``, random actions, and nobody looks: the floor."""
    settings = PQNSettings.parse(recipe_for("fast", GAME, {}).settings, "fast")
    env = make_env(atari_task(GAME, "ale"), settings.num_envs, threads=build.emulator_threads())
    actions = np.random.default_rng(0).integers(0, env.task.n_actions, (64, env.num_envs))
    env.reset(0)

    def side(seconds: float) -> int:
        steps, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            env.step(actions[steps % len(actions)])
            steps += 1
        return steps * env.num_envs

    return side


def rows() -> Iterator[Row]:
    """On every device there is."""
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        yield from on(str(device_of(device)))


def on(device: str, rounds: int = 2) -> list[Row]:
    """``fast`` / the game alone, / SB3 and / the plain loop, in turns."""
    sides = {"fast": fast(device), "the game alone": alone(), "plain DQN": plain(device)}
    if find_spec("stable_baselines3") and find_spec("cv2"):
        sides["Stable-Baselines3 DQN"] = sb3(device)
    speed: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            made = side(SECONDS)
            speed[name].append(made / (time.perf_counter() - began))
    ours = float(np.median(speed["fast"]))
    return [
        row(f"training {GAME} on {device}: fast / {name}", ours, float(np.median(speed[name])), "control steps/s", "")
        for name in sides
        if name != "fast"
    ]
