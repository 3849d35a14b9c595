"""Renders HTML pages from templates. A page needs no other file and no network."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(template: str, **content: Any) -> str:
    """Render `templates/<template>`. Content is escaped, unless the template marks it as safe."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("raremem.benchmarks.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**content)


def inline_svg(figure: Figure) -> str:
    """A plot as SVG, to stand inside a page."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]
