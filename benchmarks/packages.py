"""Packages that the tasks use and raremem itself does not."""

from __future__ import annotations

import importlib.util

from raremem.errors import MissingPackageError


def need(purpose: str, *packages: str) -> None:
    """Check that packages of the extra `bench` are installed.

    An installed package that fails to import is left to raise its own error.

    Args:
        purpose: what needs them, the subject of the error message.
        packages: their import names.

    Raises:
        MissingPackageError: one is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(f"{purpose} needs {package}: pip install 'raremem[bench]'")
