"""The command line: bad input is one line, exit code 2, and nothing changed on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from polydistill import cli
from polydistill.evaluation import scores
from polydistill.training.folder import RunFolder
from polydistill.training.progress import describe, duration
from tests import command_line
from tests.distilling import NAMES, small, write_teacher

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Type a command: exit code, standard output, standard error."""

    def typed(*arguments: object) -> tuple[int, str, str]:
        code = command_line.typed(monkeypatch, *arguments)
        return code, *capsys.readouterr()

    return typed


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two teachers (zoo/catch, zoo/catch-wind) and a recipe for them."""
    for name in NAMES:
        write_teacher(tmp_path / "zoo" / name, name)
    recipe = {"teachers": [f"zoo/{n}" for n in NAMES], **small(schedule={"total_updates": 10})}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(path: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def assert_refused(call: Call, place: Path, match: str, *arguments: object) -> str:
    before = listing(place)
    code, out, err = call(*arguments)
    assert code == 2, (out, err)
    assert out == ""
    assert err.startswith("polydistill: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert match in err
    assert listing(place) == before
    return err


BAD_FLAGS = [
    ("unknown sampler 'unifrm': did you mean 'uniform'?", ["--sampler", "unifrm"]),
    ("unknown student 'mimik': did you mean 'mimic'?", ["--student", "mimik"]),
    ("unknown student 'nett1': did you mean 'net1'?", ["--student", "nett1"]),
    ("do not make a mimic: hidden is -3, and sizes are whole", ["--set", "student.options.hidden=-3"]),
    ("4 environments: give a larger memory.capacity or fewer behaviour.num_envs", ["--set", "memory.capacity=3"]),
    ("'cross_entropy', 'reverse_kl', 'js' or 'huber' (found 'kk')", ["--loss", "kk"]),
    ("behaviour.who: Input should be 'teacher', 'student' or 'mixture' (found 'me')", ["--behaviour", "me"]),
    ("objective.temperature: Input should be greater than 0", ["--temperature", "0"]),
    ("this machine has", ["--memory", "900TB"]),
    ("'much' is no memory size", ["--memory", "much"]),
    ("--device cude: not available here", ["--device", "cude"]),
    ("unknown key 'learner.batch_siz'; did you mean 'batch_size'?", ["--set", "learner.batch_siz=3"]),
    ("unknown key 'sed'; did you mean 'seed'?", ["--set", "sed=3"]),
    ("evaluation.protocol: Input should be 'noop', 'sticky' or 'starts'", ["--set", "evaluation.protocol=human"]),
    ("write key=value", ["--set", "seed"]),
    ("the value is not YAML", ["--set", "seed=[1"]),
    ("seed: Input should be a valid integer", ["--set", "seed.x=3"]),
    ("schedule.warmup is not a group of settings", ["--set", "schedule.warmup.x=3"]),
    ("student.options.hidden is not a group", ["--set", "student.options.hidden.x=3"]),
    ("schedule.total_updates: Input should be greater than or equal to 1", ["--updates", "0"]),
    ("no teacher at zoo/pnog: card.json is missing", ["--teachers", "zoo/catch", "zoo/pnog"]),
    ("task 'catch' is named twice", ["--teachers", "zoo/catch", "zoo/catch"]),
    ("Error parsing --updates", ["--updates", "many"]),
    ("Unrecognized options: --studnt", ["--studnt", "mimic"]),
    ("nothing to resume at runs/student", ["--resume"]),
    ("is a file: name a folder", ["--out", "recipe.yaml"]),
    ("not empty and not a run", ["--out", "zoo", "--overwrite"]),
    ("cannot write to --out /proc/x", ["--out", "/proc/x"]),
]


@pytest.mark.parametrize(("match", "flags"), BAD_FLAGS, ids=[" ".join(f) for _, f in BAD_FLAGS])
def test_bad_flags(call: Call, place: Path, match: str, flags: list[str]) -> None:
    assert_refused(call, place, match, "distill", "recipe.yaml", *flags)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("learner: {batch_siz: 3}", "unknown key 'learner.batch_siz'; did you mean 'batch_size'?"),
        ("studnet: {kind: mimic}", "unknown key 'studnet'; did you mean 'student'?"),
        ("student: mimic", "student: Input should be a valid dictionary"),
        ("student:", "student: Input should be a valid dictionary"),
        ("{", "not valid YAML"),
        ("- 1", "a recipe is a mapping of settings, found list"),
        ("", "a recipe is a mapping of settings, found NoneType"),
        ("seed: 1", "'teachers' is missing"),
        ("teachers: []", "teachers: "),
        ("teachers: 5", "teachers: "),
    ],
)
def test_bad_recipes(call: Call, place: Path, content: str, match: str) -> None:
    base = "" if match.endswith("is missing") or not content.strip("{-1 ") else "teachers: [zoo/catch]\n"
    (place / "bad.yaml").write_text(content if "teachers" in content else base + content)
    said = assert_refused(call, place, match, "distill", "bad.yaml")
    assert "bad.yaml" in said


def test_recipes_that_are_not_there(call: Call, place: Path) -> None:
    assert_refused(call, place, "unknown recipe 'dmo': did you mean 'demo'?", "distill", "dmo")
    assert_refused(call, place, "no recipe file none.yaml; shipped recipes: ", "distill", "none.yaml")
    (place / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert_refused(call, place, "bytes.yaml: cannot be read as text", "distill", "bytes.yaml")
    (place / "demo").mkdir()  # a folder of that name does not hide the recipe
    how = "`polydistill teach --tasks pong freeway breakout`"
    assert how in assert_refused(call, place, "no teacher at zoo/pong", "distill", "demo", "--memory", "50MB")


def test_bad_teachers(call: Call, place: Path) -> None:
    weights, card = place / "zoo/catch/teacher.safetensors", place / "zoo/catch/card.json"
    good, good_card = weights.read_bytes(), card.read_text()

    def refused(match: str) -> None:
        assert_refused(call, place, match, "distill", "recipe.yaml")
        weights.write_bytes(good)
        card.write_text(good_card)

    weights.write_bytes(good[:-50])
    refused("zoo/catch/teacher.safetensors: truncated or not a safetensors file")
    tensors = load_file(weights)
    save_file({**tensors, "output.bias": tensors["output.bias"][:2].clone()}, weights)
    refused("output.bias: expected (3,), found (2,)")
    save_file({**tensors, "output.bias": tensors["output.bias"] * float("nan")}, weights)
    refused("output.bias holds NaN or infinite weights")
    card.write_text(good_card.replace('"RIGHT"', '"FIRE"'))
    refused("zoo/catch: the teacher acts with LEFT, NOOP, FIRE, but catch here has LEFT, NOOP, RIGHT")
    card.write_text(good_card.replace('"name": "catch"', '"name": "catc"'))
    refused("unknown task 'catc'; did you mean 'catch'?")
    card.write_text(good_card[:-20])
    refused("zoo/catch/card.json: damaged")


def test_a_run_that_is_there_or_in_use(call: Call, place: Path) -> None:
    folder = RunFolder(place / "run")
    folder.write_json("run.json", {"command": "x", "versions": {}})
    assert_refused(call, place, "is in use by process", "distill", "recipe.yaml", "--out", "run", "--overwrite")
    folder.close()
    assert_refused(call, place, "add --resume to continue it or --overwrite", "distill", "recipe.yaml", "--out", "run")
    both = ("--resume", "--overwrite")
    assert_refused(call, place, "give one of them", "distill", "recipe.yaml", "--out", "run", *both)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["teach", "--task", "catchh", "--out", "x"], "unknown task 'catchh'; did you mean 'catch'?"),
        (["teach", "--task", "pnog"], "unknown task 'pnog'; did you mean 'pong'?"),
        (["teach", "--task", "catch", "--recipe", "fst"], "unknown recipe 'fst': did you mean 'fast'?"),
        (["teach", "--task", "catch", "--set", "settings.lamda=1"], "unknown key 'lamda'; did you mean 'lam'?"),
        (
            ["teach", "--task", "catch", "--set", "network.hiden=1"],
            "unknown key 'network.hiden'; did you mean 'hidden'?",
        ),
        (["teach", "--task", "catch", "--steps", "0"], "total_steps: Input should be greater than or equal to 1"),
        (["teach", "--task", "catch", "--device", "cude"], "--device cude: not available here"),
        (["teach", "--task", "catch", "--threads", "-1"], "threads must be at least 0"),
        (["teach", "--task", "catch", "--set", "sticky=0.25"], "no sticky actions"),
        (["teach", "--task", "catch", "--out", "zoo"], "not empty and not a run"),
        (["teach", "--task", "catch", "--out", "zoo/catch"], "add --resume to continue it or --overwrite"),
        (["teach"], "name one game with --task, or several with --tasks"),
        (["teach", "--task", "pong", "--tasks", "pong"], "name one game with --task, or several with --tasks"),
        (["teach", "--task", "pong", "--workers", "2"], "--workers is for --tasks"),
        (["teach", "--tasks", "pong", "pnog"], "unknown task 'pnog'; did you mean 'pong'?"),
        (["teach", "--tasks", "all", "pong"], "pong is named twice"),
        (["teach", "--tasks", "pong", "--resume"], "--tasks goes on by itself"),
        (["teach", "--tasks", "catch", "--workers", "-1"], "--workers must be at least 1"),
        (["evaluate"], "name a run or a teacher's folder"),
        (["evaluate", "none"], "no policy at none"),
        (
            ["evaluate", "zoo/catch", "--protocol", "human"],
            "Input should be 'noop', 'sticky' or 'starts' (found 'human')",
        ),
        (["evaluate", "zoo/catch", "--episodes", "0"], "episodes: Input should be greater than or equal to 1"),
        (["evaluate", "zoo/catch", "--episodes", "1", "--steps", "1"], "give either episodes or steps, not both"),
        (["evaluate", "zoo/catch", "--protocol", "sticky", "--json"], "no sticky actions"),
        (["evaluate", "zoo/catch", "--device", "cude"], "--device cude: not available here"),
        (["report", "none"], "none"),
        (["evaluate", "a" * 300], "File name too long"),
        (["evaluate", "zoo/catch", "--out", "zoo/catch/card.json/x"], "--out zoo/catch/card.json is a file: name a"),
        (["record", "zoo/catch", "zoo/catch/card.json"], "card.json"),
        (["teach", "--task", "catch", "--seed", "-1"], "--seed -1: choose one from 0 to 99,999"),
        (["sources", "--target", "zoo/catch", "--sources", "zoo/catch", "--seed", "-1"], "--seed must not be negative"),
        (["distil"], "Unrecognized options: distil"),
        ([], "Expected one of {distill, teach, evaluate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_other_verbs(call: Call, place: Path, arguments: list[str], match: str) -> None:
    assert_refused(call, place, match, *arguments)


def test_trouble_from_outside_is_one_line(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any) -> int:
        raise OSError(28, "No space left on device", "some/file")

    monkeypatch.setattr(cli.Report, "run", full)
    assert_refused(call, place, "some/file: No space left on device", "report", "zoo")

    def bug(self: Any) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(cli.Report, "run", bug)
    monkeypatch.setattr(sys, "argv", ["polydistill", "report", "zoo"])
    with pytest.raises(OSError, match="Bad file"):  # ours to mend: with a traceback
        cli.main()

    def interrupt(self: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Report, "run", interrupt)
    assert call("report", "zoo") == (130, "", "")


def test_dry_run_says_what_would_run_and_writes_nothing(call: Call, place: Path) -> None:
    before = listing(place)
    code, out, err = call("distill", "recipe.yaml", "--dry-run", "--updates", "77", "--batch-size", "8")
    assert (code, err) == (0, "")
    assert "77 updates of 2 x 8 samples" in out
    assert "time      about" in out
    assert listing(place) == before


@pytest.mark.parametrize("flags", [["--student", "net2"], ["--set", "student.kind=net2"]])
def test_a_student_may_be_a_size(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    """As for teach and compress. The recipe's own options (hidden 64) belong to its own choice."""
    code, out, err = call("distill", "recipe.yaml", *flags, "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("student   mimic: 11,971 parameters")  # 3,264 + 8,320 + 387
    code, out, _ = call("distill", "recipe.yaml", *flags, "--set", "student.options.hidden=16", "--dry-run")
    assert out.startswith("student   mimic: ")
    assert not out.startswith("student   mimic: 11,971")
    monkeypatch.setattr("polydistill.api._inspect", lambda *a: None)
    code, out, err = call("distill", "recipe.yaml", *flags, "--out", "run")
    assert code == 0, err
    student = yaml.safe_load((place / "run/recipe.yaml").read_text())["student"]
    assert student["kind"] == "mimic"
    assert student["options"] == {"channels": [16, 16, 16], "hidden": 128}
    again = ("--student", "mimic", "--set", "student.options={hidden: 128, channels: [16, 16, 16]}", "--resume")
    assert call("distill", "recipe.yaml", *again, "--out", "run", "--updates", "12")[0] == 0  # the same network


def test_a_run_and_its_scores_as_json(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polydistill.api.inspect_task", lambda *a, **k: None)
    monkeypatch.setattr("polydistill.api.embed", lambda *a, **k: None)
    flags = ("--out", "run", "--student", "controllers", "--set", "student.options.hidden=16", "--track", "tensorboard")
    code, out, err = call("distill", "recipe.yaml", *flags)
    assert code == 0, err
    assert out.strip().splitlines()[-1] == "report: run/report.html"
    assert "catch-wind" in out
    assert "10/10 updates" in err
    assert "agreement" in err
    info = json.loads((place / "run/run.json").read_text())
    assert info["command"] == "polydistill distill recipe.yaml " + " ".join(flags)
    recipe = yaml.safe_load((place / "run/recipe.yaml").read_text())
    assert recipe["student"] == {"kind": "controllers", "options": {"hidden": 16}, "bf16": False}
    assert list((place / "run/tensorboard").iterdir())

    code, out, err = call("evaluate", "run", "--episodes", "2", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out, parse_constant=pytest.fail)  # no NaN, which is not JSON
    assert found["policy"] == "run"
    assert found["tasks"].keys() == set(NAMES)
    assert found["tasks"]["catch"]["episodes"] == 2
    code, out, _ = call("evaluate", "zoo/catch", "run", "--steps", "90", "--json")
    assert [f["policy"] for f in json.loads(out)] == ["zoo/catch", "run"]
    code, out, _ = call("evaluate", "zoo/catch", "--episodes", "2")
    assert out.startswith("zoo/catch\n")


def test_help_is_clean_and_needs_no_torch() -> None:
    program = (
        "import sys\nfrom polydistill import cli\n"
        "try: cli.main()\nexcept SystemExit as stop: code = stop.code\n"
        "assert not code, code\n"
        "heavy = {'torch', 'numpy', 'gymnasium', 'ale_py', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy"
    )
    for verb in ("distill", "evaluate"):
        command = [sys.executable, "-c", program, verb, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        for ugly in ("None", "--no-", "(default: )", "STR", "False"):
            assert ugly not in done.stdout
        assert "--device NAME" in done.stdout


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 12, 200, 3725, float("inf"))] == ["0s", "12s", "3m 20s", "1h 02m", "?"]


def test_a_line_of_progress() -> None:
    record = {
        "control_steps_per_s": 1234.5, "updates_per_s": 56.78, "loss": 0.12345,
        "tasks": {"pong": {"agreement": 0.912}, "freeway": {"agreement": 1.0}},
    }  # fmt: skip
    assert describe(record, {"pong": 97.2}, 200) == (
        "1,234 control steps/s | 56.8 updates/s | loss 0.1235 | agreement pong 91% freeway 100% | "
        "of teacher pong 97% | 3m 20s left"
    )
    assert scores.RULE  # what the table's last line is made of
