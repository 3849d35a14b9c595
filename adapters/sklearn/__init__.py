"""raremem as a scikit-learn classifier, for vectors of a frozen encoder and classes that keep arriving."""

import importlib.util

from raremem.errors import MissingPackageError

if importlib.util.find_spec("sklearn") is None:
    raise MissingPackageError("raremem.adapters.sklearn needs the package 'scikit-learn': pip install 'raremem[sklearn]'")

from raremem.adapters.sklearn.classifier import MemoryClassifier
from raremem.adapters.sklearn.results import Contents, Neighbors

__all__ = ["Contents", "MemoryClassifier", "Neighbors"]
