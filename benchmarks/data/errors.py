"""What goes wrong with data."""

from raremem.errors import RarememError


class DataError(RarememError, ValueError):
    """A data set is not where it was said to be, or is not what it should be."""
