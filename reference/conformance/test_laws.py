"""Every law, on every backend that was named, in every mode that it has."""

import pytest

from raremem.reference.laws import LAWS, run


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_law(law, raremem_mode, record_property, pytestconfig):
    """The law holds; not run where it needs what the backend does not declare."""
    if law.needs is not None and law.needs not in raremem_mode.backend.capabilities:
        pytest.skip(f"not declared: {law.needs}")
    record_property(
        "examples", run(law, raremem_mode.backend, pytestconfig.option.raremem_examples, called=raremem_mode.called)
    )
