"""Every law, on every backend that was named, in every mode of it."""

import time
from collections.abc import Callable

import pytest

from raremem.reference.conformance.plugin import RESULTS, Mode
from raremem.reference.laws import LAWS, Law, run


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_law(law: Law, raremem_mode: Mode, record_property: Callable[[str, object], None], pytestconfig: pytest.Config) -> None:
    """The law holds; skipped if it needs a capability that the backend does not declare."""
    if not law.runs_on(raremem_mode.backend):
        pytest.skip(f"not declared: {law.needs}")
    examples, seconds = pytestconfig.option.raremem_examples, pytestconfig.stash[RESULTS].seconds
    tried, end = 0, time.monotonic() + seconds
    while tried == 0 or time.monotonic() < end:
        tried += run(law, raremem_mode.backend, examples, called=raremem_mode.called, fuzz=seconds > 0)
    record_property("examples", tried)
