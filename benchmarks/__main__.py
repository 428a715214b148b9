"""``make bench``: a table and ``benchmarks/latest.json``; ``make bench ONLY="doom teach"``: of these groups."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import collect_bench, doom_bench, joint_bench, learner_bench, samplers_bench, teach_bench
from benchmarks.timing import Row
from polydistill.plugins import nearest
from polydistill.training.folder import provenance

LATEST = Path(__file__).with_name("latest.json")

GROUPS: dict[str, Callable[[], Iterable[Row]]] = {
    "memory": learner_bench.bytes_per_experience,
    "learner": learner_bench.learner,
    "samplers": samplers_bench.samplers_at_paper_size,
    "joint": joint_bench.rows,
    "collect": collect_bench.collect,
    "doom": doom_bench.doom,
    "teach": teach_bench.rows,
}


def main(chosen: Sequence[str]) -> int:
    """Measure, print, and write after each group; the rows of groups that were not asked for stay as they are."""
    for name in chosen:
        if name not in GROUPS:
            print(f"no group of benchmarks {name!r}; {nearest(name, GROUPS)}", file=sys.stderr)
            return 2
    info = provenance(" ".join(["make bench", *([f'ONLY="{" ".join(chosen)}"'] if chosen else [])]))
    origin = {key: info[key] for key in ("commit", "dirty", "started")}
    kept: dict[str, list[Row]] = json.loads(LATEST.read_text())["groups"] if LATEST.exists() else {}
    for group in chosen or GROUPS:
        rows = []
        for found in GROUPS[group]():
            rows.append({**found, **origin})
            print(
                f"{found['name']:52} {found['ours']:>10,.1f} {found['reference']:>10,.1f} {found['unit']:16} "
                f"{found['ratio']:6.2f}  ({found['want']})",
                flush=True,
            )
        kept[group] = rows
        ordered = {name: kept[name] for name in GROUPS if name in kept}
        LATEST.write_text(json.dumps({**info, "groups": ordered}, indent=2) + "\n")
    print(f"written to {LATEST.relative_to(Path.cwd()) if LATEST.is_relative_to(Path.cwd()) else LATEST}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
