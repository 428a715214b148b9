"""matplotlib figures as SVG that stands inside a page: its text is text, its colours are the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from polydistill.outputs import replace_page

CSS = Path(__file__).parent / "style.css"

# Drawn with these colours, published as the page's custom properties, which differ in light and dark.
INK, MUTED, RULE = "#010101", "#020202", "#030303"
STUDENT, TEACHER, RANDOM = "#040404", "#050505", "#060606"
TASKS = tuple(f"#0707{i:02x}" for i in range(8))
_VARIABLES = {
    INK: "ink", MUTED: "muted", RULE: "rule", STUDENT: "student", TEACHER: "teacher", RANDOM: "random",
    **{c: f"task-{i}" for i, c in enumerate(TASKS)},
}  # fmt: skip

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "polydistill",
    "font.size": 12.0,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "text.parse_math": False,  # a task may have a $ in its name
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "axes.labelsize": 11.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}


def style() -> AbstractContextManager[None]:
    """Within it every figure has the page's look."""
    return matplotlib.rc_context(_STYLE)


def axes(width: float = 360.0, height: float = 230.0) -> tuple[Figure, Axes]:
    """A figure of so many CSS pixels at its natural size, and its axes. No pyplot, so no global state."""
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def stacked(width: float, height: float) -> tuple[Figure, tuple[Axes, Axes]]:
    """As :func:`axes`, with two axes, one above the other, over one x axis."""
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasSVG(figure)
    top, bottom = figure.subplots(2, 1, sharex=True)
    return figure, (top, bottom)


def to_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element.

    Args:
        name: Prefix of every id, unique on the page.
        description: What a person who cannot see it should know; plain text.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*|<style.*?</style>\s*", "", text, flags=re.S)  # its style would reach the whole page
    view = re.search(r'viewBox="([^"]+)"', text)
    assert view is not None
    width = float(view[1].split()[2])
    label = escape(description, quote=True)
    head = (
        f'<svg class="plot" viewBox="{view[1]}" style="max-width:{1.2 * width:.0f}px" role="img" aria-label="{label}">'
    )
    text = re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)
    prefix = re.sub(r"[^A-Za-z0-9-]", "-", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}.\1"', text)
    text = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{prefix}.\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}.\1)", text)
    text = re.sub(r"font-family: [^;\"]+", "font-family: inherit", text)
    text = re.sub(r"(font: [^;\"]*?\d(?:px|pt)?) [^;\"]*", r"\1 var(--font)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text


def stand_alone(plot: str) -> str:
    """The text of an SVG file from :func:`to_svg`'s element: with the page's colours, for light and dark."""
    css = CSS.read_text()
    colours = css[: css.index("* {")].replace(":root", "svg")
    head, rest = plot.split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{head}><style>{colours}svg{{font-family:var(--font)}}</style>{rest}\n"


def write_svg(out: Path, plot: str) -> Path:
    """Write a plot as a file that stands alone; an older one is replaced as a whole. Returns ``out``.

    Raises:
        UserError: it cannot be written, or another kind of file is there.
    """
    return replace_page(out, stand_alone(plot), "the picture")


def write_pictures(folder: Path, plots: Mapping[str, str | None]) -> list[Path]:
    """Write each plot, file name -> plot, into ``folder``; None, nothing to show, is left out. As :func:`write_svg`."""
    return [write_svg(folder / name, plot) for name, plot in plots.items() if plot is not None]
