"""Long random programs on two backends side by side."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

import raremem
from raremem.reference.programs import program_machine


@pytest.mark.parametrize(("left", "right"), [("numpy", "reference"), ("torch", "numpy"), ("jax", "torch")])
def test_programs_agree(left, right):
    run_state_machine_as_test(
        program_machine(raremem.get_backend(left), raremem.get_backend(right)),
        settings=settings(
            max_examples=25,
            stateful_step_count=60,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
