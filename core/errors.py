"""One error type per cause, all of them `RarememError`.

Every message says what arrived, what was expected and how to mend it. When one is raised, no state has changed.
"""


class RarememError(Exception):
    """Base of every error that raremem raises on purpose."""


class ConfigError(RarememError, ValueError):
    """A `MemoryConfig` field is out of its range."""


class ShapeError(RarememError, ValueError):
    """An array has the wrong number of dimensions or the wrong size."""


class DTypeError(RarememError, TypeError):
    """An array holds the wrong kind of number."""


class DeviceError(RarememError, ValueError):
    """An array lies on another device than the memory."""


class TargetError(RarememError, ValueError):
    """A target is outside [0, 2**31 - 1]."""


class RejectedRowsError(RarememError, ValueError):
    """With `strict=True`: some query rows are not finite or have no direction."""


class StateError(RarememError, ValueError):
    """A state does not fit its config, or breaks an invariant of the specification."""


class ForgetError(RarememError, ValueError):
    """What is to be forgotten is not named, or by a slot, a value or an age that cannot be."""


class ConcurrencyError(RarememError, RuntimeError):
    """Another thread is using a memory that is updated."""


class CheckpointError(RarememError, ValueError):
    """A checkpoint file is damaged, no memory at all, or of an unknown schema. (One that is missing is a FileNotFoundError.)"""


class UnknownBackendError(RarememError, ValueError):
    """No backend goes by that name, and none owns that type of array."""


class MissingPackageError(RarememError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
