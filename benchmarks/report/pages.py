"""Renders HTML pages from templates. A page needs no other file and no network."""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

from raremem.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def need_report() -> None:
    """Check, before the work, that its report can be written after it.

    Raises:
        MissingPackageError: matplotlib or jinja2 is not installed.
    """
    _need("matplotlib", "jinja2")


def need_templates() -> None:
    """As `need_report`, for a page without plots.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    _need("jinja2")


def _need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(f"the report needs {package}: pip install 'raremem[bench]'")


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
