"""The page: one HTML file without scripts, external files or network access."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._core.errors import UserError
from . import numbers
from .curves import curves_svg
from .images import SHOWN, blank, caption, grid_png
from .matched import matched_svg
from .model import Grid, Report, Row, Timeline
from .online import facts, figures
from .phases import phases_svg
from .similarity import similarity_svg
from .svg import printable
from .timelines import timeline_png
from .tradeoff import tradeoff_svg

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["figure", "is_steep", "plot", "render", "render_template", "settings_groups", "timeline_figure", "write"]

_ORDER = ("teacher", "with data", "from a few images", "without data", "quantized")


def render(report: Report) -> str:
    """The report as HTML; equal reports give equal text. Raises UserError for a grid with other classes."""
    return render_template(
        "page.html",
        report=report,
        groups=[(name, [_row(row, report.rows) for row in rows]) for name, rows in _groups(report.rows)],
        several=any(row.seeds > 1 for row in report.rows),
        figures=[figure(grid, report.classes) for grid in report.grids],
        heads=report.classes[:SHOWN],
        steep=is_steep(report.classes[:SHOWN]),
        curves=plot(curves_svg, report.lines),
        tradeoff=plot(tradeoff_svg, report.scatter),
        similarities=[
            (table.caption, plot(similarity_svg, table.similarities, table.unit, str(index)))
            for index, table in enumerate(report.similarities)
        ],
        online=facts(report.online),
        stability=figures(report.online),
        phases=plot(phases_svg, report.online),
        timelines=[timeline_figure(timeline) for timeline in report.timelines],
        matches=[
            (match.caption, plot(matched_svg, match.layers, str(index))) for index, match in enumerate(report.matches)
        ],
        settings=settings_groups(report.settings),
    )


def render_template(name: str, *folders: Path, **values: Any) -> str:
    """The page of a template in one of the folders, or in that of this file, with the pages' style sheet."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    pages = Environment(
        loader=FileSystemLoader([*folders, folder]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup((folder / "page.css").read_text(encoding="utf-8"))
    return printable(pages.get_template(name).render(css=css, **values))


def write(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes the rendered report to `path`, atomically."""
    from ..._core.files import write_text  # imports torch

    write_text(path, render(report))


def plot(draw: Callable[..., str], *values: Any) -> Markup:
    """The plot as SVG, wide and narrow, of which the style sheet shows one; empty if there is nothing to draw."""
    from markupsafe import Markup

    parts = [(kind, draw(*values, narrow=kind == "narrow")) for kind in ("wide", "narrow")]
    return Markup("\n").join(Markup(f'<div class="on-{kind}">\n{svg}\n</div>') for kind, svg in parts if svg)


def _groups(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by group: teacher, with data, from a few images, without data, quantized, then others in order."""
    names = [name for name in _ORDER if any(row.group == name for row in rows)]
    names += [name for name in dict.fromkeys(row.group for row in rows) if name not in _ORDER]
    return [(name, [row for row in rows if row.group == name]) for name in names]


def _row(row: Row, rows: list[Row]) -> dict[str, Any]:
    teacher = next((entry.parameters for entry in rows if entry.group == "teacher"), None)
    return {
        "name": row.name,
        "accuracy": numbers.percent(row.accuracy),
        "spread": numbers.spread(row.sd, row.seeds),
        "agreement": "–" if row.group == "teacher" else numbers.percent(row.agreement),
        "parameters": numbers.count(row.parameters),
        "factor": numbers.factor(row.parameters, teacher),
        "size": numbers.size(row.nbytes),
        "images": numbers.count(row.images),
        "time": numbers.duration(row.seconds),
        "note": row.note,
    }


def is_steep(heads: tuple[str, ...]) -> bool:
    """Whether the class names are too long to be written horizontally above their columns."""
    return max(map(len, heads), default=0) > max(4, 40 // max(1, len(heads)))


def figure(grid: Grid, classes: tuple[str, ...]) -> dict[str, Any]:
    if len(grid.means) != len(classes):
        raise UserError(
            f"grid {grid.name!r}: got {len(grid.means)} classes, expected the report's {len(classes)}; give a mean "
            "image for each class"
        )
    missing = [classes[k] for k in blank(grid)]
    samples = len(grid.samples)
    alt = f"{grid.name}: the mean image of each class" + (f", below it {samples} random images" if samples else "")
    alt += f". Columns: {', '.join(classes[:SHOWN])}."
    return {
        "name": grid.name,
        "caption": caption(grid),
        "missing": missing,
        "alt": alt + (f" No images of {', '.join(missing)}." if missing else ""),
        "rows": ["mean", *[f"sample {i + 1}" if samples > 1 else "sample" for i in range(samples)]],
        "png": base64.b64encode(grid_png(grid)).decode("ascii"),
    }


def timeline_figure(timeline: Timeline) -> dict[str, Any]:
    count, rows = timeline.pixels.shape[1], len(timeline.epochs)
    omitted = f", {rows} of {timeline.total:,} shown" if rows < timeline.total else ""
    epochs = (
        f"epoch {timeline.epochs[0]}" if rows == 1 else f"epochs {timeline.epochs[0]} to {timeline.epochs[-1]}{omitted}"
    )
    return {
        "name": timeline.name,
        "caption": f"{epochs}, from the top; each column uses the same latent vector",
        "alt": f"{timeline.name}: images generated from the same {count} latents in {epochs}.",
        "count": count,
        "rows": [f"{epoch:,}" for epoch in timeline.epochs],
        "png": base64.b64encode(timeline_png(timeline)).decode("ascii"),
    }


def settings_groups(settings: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value): plain settings first, then each dict, versions last."""
    plain = [(str(key), numbers.setting(value)) for key, value in settings.items() if not isinstance(value, Mapping)]
    nested = [(str(key), _flat(value)) for key, value in settings.items() if isinstance(value, Mapping)]
    nested.sort(key=lambda group: group[0] == "versions")
    if not any(name.partition(".")[0] == "versions" for name, _ in [*nested, *plain]):
        nested.append(("versions", [("versions", "not recorded")]))
    return [("", plain), *nested] if plain else nested


def _flat(values: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        pairs += _flat(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, numbers.setting(value))]
    return pairs
