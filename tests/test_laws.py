"""Every law on every backend, eager and compiled; and that the run fails if a backend was never tried."""

import pytest

from raremem.reference.laws import LAWS, run

EXAMPLES = 50


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_law(law, backend):
    if law.gradients and not backend.differentiable:
        pytest.skip(f"{backend.name} declares no gradients")
    run(law, backend, EXAMPLES)
