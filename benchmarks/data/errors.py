"""The error of all data sets."""

from raremem.errors import RarememError


class DataError(RarememError, ValueError):
    """A data set is not where it was said to be, or is not what it should be."""
