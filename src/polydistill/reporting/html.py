"""What the pages of all kinds of runs share: templates, a run's seeds, and one file written at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from polydistill.reporting.data import RunData
from polydistill.reporting.text import breakable, interval, listed, num, thousands, when

HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """The templates of this folder, and the filters of :mod:`~polydistill.reporting.text`."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,  # any part of a run may be missing
    )
    made.filters |= {f.__name__: f for f in (num, interval, thousands, when, listed, breakable)}
    return made


def inline(plot: str | None) -> Markup | None:
    """A figure of :mod:`~polydistill.reporting.svg`, which escapes, for a template."""
    return Markup(plot) if plot else None


def seeds(data: RunData) -> list[tuple[str, Any]]:
    """Every setting of the recipe whose name is or ends with ``seed``, dotted, and those the scores name."""
    try:
        recipe = yaml.safe_load(data.recipe) if data.recipe else {}
    except yaml.YAMLError:
        recipe = {}
    found: list[tuple[str, Any]] = []

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif re.search(r"(^|_)seeds?$", str(key)):
                found.append((f"{prefix}{key}", value))

    walk(recipe, "")
    if "seed" in (data.summary.get("protocol") or {}):
        found.append(("final evaluation", data.summary["protocol"]["seed"]))
    if not found and data.seeds:
        found.append(("scores.csv", ", ".join(map(str, data.seeds))))
    return found
