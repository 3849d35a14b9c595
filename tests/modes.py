"""Every backend and mode that the laws are run on."""

import raremem

MODES = {
    "numpy-eager": ("numpy", False),
    "torch-eager": ("torch", False),
    "torch-compiled": ("torch", True),
    "jax-eager": ("jax", False),
    "jax-compiled": ("jax", True),
}


def backend_of(mode: str) -> raremem.Backend:
    name, compiled = MODES[mode]
    return raremem.get_backend(name, compiled=compiled)


def unexercised(passed: dict[str, int]) -> list[str]:
    """The modes on which no law passed."""
    return [mode for mode in MODES if not passed.get(mode)]
