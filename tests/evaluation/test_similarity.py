"""Linear CKA and the linear read-out against typed-in numbers; sources compared on catch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polydistill import nets
from polydistill.envs.catch import catch_task
from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError
from polydistill.evaluation.similarity import (
    UNTRAINED,
    compare_sources,
    held_out_agreement,
    linear_cka,
    read_out,
    sources_table,
)  # fmt: skip
from polydistill.nets.store import save_student
from polydistill.rng import seeded_init
from polydistill.tasks import Suite
from polydistill.teachers.zoo import Network, build_network, save_teacher
from tests.distilling import rng, write_teacher

CROSS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def test_cka() -> None:
    x = rng("x").normal(size=(50, 4))
    turn, _ = np.linalg.qr(rng("turn").normal(size=(4, 4)))
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, 3 * x @ turn + 7) == pytest.approx(1)
    assert linear_cka(CROSS, CROSS[:, :1]) == pytest.approx(1 / np.sqrt(2))  # ||Y'X||^2 = 4; 2 sqrt(2) and 2
    assert linear_cka(CROSS[:, :1], CROSS[:, 1:]) == 0
    assert str(linear_cka(CROSS, np.ones((4, 1)))) == "nan"
    with pytest.raises(ValueError, match="the same two or more rows, found 4 and 3"):
        linear_cka(CROSS, CROSS[:3])


def test_a_linear_function_is_read_off() -> None:
    x = rng("features").normal(size=(60, 3))
    y = x @ np.array([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]]) + np.array([4.0, -1.0])
    assert read_out(x, y, 30, ridge=1e-9) == pytest.approx(y[30:], abs=1e-5)
    x = rng("more").normal(size=(400, 3))
    q = np.concatenate([x[:, :1], -x[:, :1]], 1) + 100 * x[:, 1:2]  # the level of a state plays no part
    assert held_out_agreement(x, q, 200) > 0.9
    assert held_out_agreement(rng("noise").normal(size=(400, 1)), q, 200) < 0.65


def test_nearly_as_many_features_as_rows_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three states of four have one best action. Useless features must leave it at that."""
    q = np.tile([1.0, 0.0], (400, 1))
    q[::4] = [0.0, 1.0]
    x = rng("wide").normal(size=(400, 140))
    assert held_out_agreement(x, q, 200) > 0.7
    monkeypatch.setattr("polydistill.evaluation.similarity.RIDGES", (1e-9,))
    assert held_out_agreement(x, q, 200) < 0.7


def test_sources_in_the_order_of_their_help(tmp_path: Path) -> None:
    for name in ("catch", "catch-wind", "catch-mirror"):
        write_teacher(tmp_path / name, name)
    sources = [tmp_path / "catch-wind", tmp_path / "catch", tmp_path / "catch-mirror"]
    rows = compare_sources(tmp_path / "catch", sources, 400)
    assert rows[0].source == str(tmp_path / "catch")
    assert rows[0].cka == pytest.approx(1)
    assert rows[0].agreement > 0.9
    assert rows[-1].source == UNTRAINED
    assert [r.agreement for r in rows[:3]] == sorted((r.agreement for r in rows[:3]), reverse=True)
    assert all(0 <= r.cka < 1 for r in rows[1:])
    again = compare_sources(tmp_path / "catch", sources, 400)
    assert again == rows
    table = sources_table(rows, "zoo/catch")
    assert f"| {tmp_path / 'catch'} | 1.000 | {100 * rows[0].agreement:.1f} |" in table
    with pytest.raises(UserError, match="at least 20"):
        compare_sources(tmp_path / "catch", sources, 10)
    write_teacher(tmp_path / "wide", "catch-wide")
    with pytest.raises(UserError, match="source and target observations differ"):
        compare_sources(tmp_path / "catch", [tmp_path / "wide"], 400)


def test_a_source_is_asked_in_the_precision_it_plays_in(tmp_path: Path) -> None:
    """A teacher whose training ran its hidden layer in bfloat16 has the features that `load_teacher` shows."""
    task, network = catch_task("catch"), Network(hidden=64, bf16=True)
    with seeded_init(3, "bf16"):
        net = build_network(task, network)
    save_teacher(tmp_path, net, {"task": task.to_dict(), "network": network.model_dump(mode="json")})
    (own, _) = compare_sources(tmp_path, [tmp_path], 200)
    assert own.cka == pytest.approx(1, abs=1e-12)


def test_a_run_of_tasks_with_layers_of_their_own_is_a_row_for_each(tmp_path: Path) -> None:
    """One row where they share all below the last layer: nothing says which of them it owes what."""
    write_teacher(tmp_path / "catch", "catch")
    tasks = tuple(catch_task(name) for name in ("catch-wind", "catch-mirror", "catch-wide"))
    for kind, of in (("mimic", tasks[:2]), ("task_heads", tasks), ("controllers", tasks)):
        with seeded_init(1, kind):
            student = nets.make(kind, Suite(of), hidden=8)
        (tmp_path / kind).mkdir()
        save_student(tmp_path / kind, student, kind)
    folders = [tmp_path / kind for kind in ("mimic", "task_heads", "controllers")]
    rows = compare_sources(tmp_path / "catch", folders, 100)
    own = [f"{tmp_path / 'task_heads'} ({t})" for t in ("catch-wind", "catch-mirror")]  # catch-wide sees something else
    shared = [str(tmp_path / "mimic"), str(tmp_path / "controllers")]
    assert sorted(r.source for r in rows[:-1]) == sorted([*shared, *own])
    assert len({r.cka for r in rows}) == len(rows)


def test_other_pixels_are_refused(tmp_path: Path) -> None:
    for profile in ("ale", "nature"):
        task, network = resolve_task("pong", profile=profile), Network(channels=(4, 4, 4), hidden=8)
        card = {"task": task.to_dict(), "network": network.model_dump(mode="json"), "kind": "q"}
        save_teacher(tmp_path / profile, build_network(task, network), card)
    with pytest.raises(UserError, match=r"observations differ: .*ale expects .* with ale pixels, found .* with nature"):
        compare_sources(tmp_path / "nature", [tmp_path / "ale"], 100)
