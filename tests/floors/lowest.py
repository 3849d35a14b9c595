"""The lowest versions that pyproject.toml declares. As a program: print them as constraints for pip."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest() -> dict[str, str]:
    """The lowest version of each package. (By its text: Python 3.10 has no parser of TOML.)"""
    declared = re.findall(r'"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?: *;[^"]*)?"', PROJECT.read_text(encoding="utf-8"))
    return dict(declared)


if __name__ == "__main__":
    print(*(f"{package}=={version}" for package, version in lowest().items()), sep="\n")
