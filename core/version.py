"""The version of raremem, in one place."""

__version__ = "0.1.0"
