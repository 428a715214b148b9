"""`polydistill starts`, and what is done with its bundles."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from polydistill.evaluation import start_files
from polydistill.evaluation.start_files import read
from tests.distilling import NAMES, small, write_teacher
from tests.test_cli import Call, assert_refused, call  # noqa: F401  # a fixture


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two teachers."""
    for name in NAMES:
        write_teacher(tmp_path / "zoo" / name, name, scores={"noop": {"mean": 8.5}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(call: Call, *arguments: object) -> str:  # noqa: F811
    code, out, err = call("starts", *arguments)
    assert (code, err) == (0, "")
    return out


def test_made_from_a_policy_and_played_by_student_and_teacher(
    call: Call,  # noqa: F811
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = made(call, "--task", "catch", "--policy", "zoo/catch", "--count", 20, "--epsilon", 0.3)
    assert "catch: 2 of 20 games\n" in out
    assert out.splitlines()[-1].startswith("starts/catch.json: 20 starts, ")
    origin = read(Path("starts/catch.json")).origin
    assert (origin.policy, origin.epsilon, origin.card_score) == ("zoo/catch", 0.3, 8.5)
    assert origin.command == "polydistill starts --task catch --policy zoo/catch --count 20 --epsilon 0.3"
    made(call, "--task", "catch-wind", "--policy", "random", "--count", 8, "--out", "deep/er/wind.json", "--seed", 4)
    random = read(Path("deep/er/wind.json")).origin
    assert (random.policy, random.epsilon, random.card_score) == ("random", 1.0, None)

    flags = ("--protocol", "starts", "--json")
    code, out, err = call("evaluate", "zoo/catch", *flags, "--starts", "starts/catch.json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["tasks"]["catch"]["episodes"] == 20
    assert found["protocol"]["starts"] == "starts/catch.json"
    assert found["tasks"]["catch"]["random"] < found["tasks"]["catch"]["score"]
    code, out, _ = call("evaluate", "zoo/catch", "--protocol", "starts", "--starts", "starts")
    assert "Protocol starts: epsilon 0.05, all starts per task." in " ".join(out.split())

    # A recipe: bundles that come with the package, or here in their place.
    Path("deep/er/wind.json").rename("starts/catch-wind.json")
    monkeypatch.setattr(start_files, "SHIPPED", Path("starts"))
    recipe = {"teachers": [f"zoo/{n}" for n in NAMES], **small(schedule={"total_updates": 5})}
    recipe["evaluation"] = {"every": 0, "episodes": 2, "final_episodes": 8, "protocol": "starts"}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr("polydistill.api.inspect_task", lambda *a, **k: None)
    monkeypatch.setattr("polydistill.api.embed", lambda *a, **k: None)
    code, out, err = call("distill", "recipe.yaml", "--out", "run")
    assert code == 0, err
    for name in ("scores.csv", "teacher_scores.csv"):
        rows = list(csv.DictReader((place / "run" / name).open()))
        assert [r["episode"] for r in rows] == [str(i) for i in range(8)] * 2
        steps = [40 - len(s.actions) for n in NAMES for s in read(Path(f"starts/{n}.json")).starts[:8]]
        assert [int(r["steps"]) for r in rows] == steps  # student and teacher from the same positions
        assert {r["protocol"] for r in rows} == {"starts"}
    code, out, _ = call("evaluate", "run", *flags, "--episodes", 8)
    assert json.loads(out)["tasks"]["catch-wind"]["episodes"] == 8


def test_who_is_scored_from_its_own_starts_is_told(call: Call, place: Path) -> None:  # noqa: F811
    """A note, no error: of the policy itself, and of the teacher that is played beside its student."""
    for name, policy in (("catch", "zoo/catch"), ("catch-wind", "random")):
        made(call, "--task", name, "--policy", policy, "--count", 3)
    flags = ("--protocol", "starts", "--starts", "starts")

    def notes(*policies: str) -> list[str]:
        code, out, err = call("evaluate", *policies, *flags)
        assert (code, err) == (0, "")
        said = [line for line in out.splitlines() if line.startswith("note: ")]
        code, out, _ = call("evaluate", *policies, *flags, "--json")
        found = json.loads(out)
        each = [f.get("notes", []) for f in (found if isinstance(found, list) else [found])]
        assert [f"note: {note}" for own in each for note in own] == said
        return said

    told = (
        "note: starts/catch.json: these starts are zoo/catch's own, which is scored from them here; "
        "those of an independent policy are fairer (polydistill starts)"
    )
    assert notes("zoo/catch") == [told]
    assert notes(str(place / "zoo" / ".." / "zoo" / "catch")) == [told]  # by another name
    assert notes("zoo/catch-wind") == []  # random's
    assert notes("zoo/catch-wind", "zoo/catch") == [told]
    (place / "recipe.yaml").write_text(
        yaml.safe_dump({"teachers": [f"zoo/{n}" for n in NAMES], **small(schedule={"total_updates": 2})})
    )
    quick = ("--set", "evaluation.inspect=false", "evaluation.final_episodes=1")
    assert call("distill", "recipe.yaml", "--out", "run", *quick)[0] == 0
    assert notes("run") == [told]  # of its teacher
    assert call("evaluate", "run", "--episodes", 1)[1].count("note: ") == 0  # no starts
    made(call, "--task", "catch", "--policy", "run", "--count", 3, "--overwrite")
    assert notes("run") == [told.replace("zoo/catch", "run")]
    assert notes("zoo/catch") == []
    (place / "random").symlink_to("zoo/catch-wind")
    assert notes("random") == []  # a folder of that name is not who played


BAD = [
    ("unknown task 'catchh'; did you mean 'catch'?", ["--task", "catchh", "--policy", "random"]),
    ("no policy at none", ["--task", "catch", "--policy", "none"]),
    ("zoo/catch does not play 'catch-wind'", ["--task", "catch-wind", "--policy", "zoo/catch"]),
    ("--count must be at least 1; found 0", ["--task", "catch", "--policy", "random", "--count", "0"]),
    ("--epsilon is a probability", ["--task", "catch", "--policy", "random", "--epsilon", "2"]),
    ("--seed must not be negative", ["--task", "catch", "--policy", "random", "--seed", "-1"]),
    ("threads must be at least 0", ["--task", "catch", "--policy", "random", "--threads", "-1"]),
    ("--out zoo is a folder: name a file", ["--task", "catch", "--policy", "random", "--out", "zoo"]),
    ("x.json is there already: add --overwrite", ["--task", "catch", "--policy", "random", "--out", "x.json"]),
    ("--out x.json/y: x.json is a file", ["--task", "catch", "--policy", "random", "--out", "x.json/y"]),
    ("Missing from polydistill starts: --policy", ["--task", "catch"]),
]


@pytest.mark.parametrize(("match", "flags"), BAD, ids=[m for m, _ in BAD])
def test_bad_flags(call: Call, place: Path, match: str, flags: list[str]) -> None:  # noqa: F811
    (place / "x.json").write_text("something")
    assert_refused(call, place, match, "starts", *flags)


def test_overwrite(call: Call, place: Path) -> None:  # noqa: F811
    (place / "x.json").write_text("something")
    made(call, "--task", "catch", "--policy", "random", "--count", 1, "--out", "x.json", "--overwrite")
    assert len(read(place / "x.json").starts) == 1


def test_bad_bundles_are_refused_before_anything_is_played(call: Call, place: Path) -> None:  # noqa: F811
    made(call, "--task", "catch", "--policy", "random", "--count", 3)
    evaluate = ("evaluate", "zoo/catch", "--protocol", "starts")
    assert_refused(call, place, "no starts of catch: bundles that come with polydistill: ", *evaluate)
    assert_refused(call, place, "4 starts were asked for, it holds 3", *evaluate, "--starts", "starts", "--episodes", 4)
    assert_refused(call, place, "no bundle of starts at none", *evaluate, "--starts", "none")
    assert_refused(call, place, "give episodes, not steps", *evaluate, "--starts", "starts", "--steps", 100)
    assert_refused(call, place, "goes with protocol starts", "evaluate", "zoo/catch", "--starts", "starts")
    wind = ("evaluate", "zoo/catch-wind", "--protocol", "starts", "--starts", "starts/catch.json")
    assert_refused(call, place, "starts/catch.json: starts of catch, not of catch-wind", *wind)
    recipe = {"teachers": [f"zoo/{n}" for n in NAMES], **small(evaluation={"protocol": "starts"})}
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert_refused(call, place, "no starts of catch: ", "distill", "recipe.yaml")
    text = (place / "starts/catch.json").read_text()
    (place / "starts/catch.json").write_text(text.replace('"epsilon": 1.0', '"epsilon": 0.5'))
    assert_refused(call, place, "damaged or no bundle of starts", *evaluate, "--starts", "starts")
