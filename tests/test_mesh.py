"""A memory over the devices of a JAX mesh, here four that the CPU plays: it is the memory that one device has.

The cases are in `mesh_cases.py`; they share a process, and so what JAX has compiled. It compiles without optimisation there, in
two thirds of the time: optimised programs are held to the laws on one device.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FLAGS = (
    "--xla_force_host_platform_device_count=4 --xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)


@pytest.fixture(scope="module")
def outcomes():
    """Of each case: what it said, and its error."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    command = [sys.executable, str(Path(__file__).with_name("mesh_cases.py"))]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return {name: (said, error) for name, said, error in map(json.loads, result.stdout.splitlines())}


def said_by(outcomes, case):
    said, error = outcomes[case]
    assert error is None, error
    return said


@pytest.mark.parametrize("devices", [2, 4])
def test_every_law_holds(devices, outcomes):
    assert "update_agrees" in said_by(outcomes, f"laws_hold {devices}")


def test_that_check_can_fail(outcomes):
    assert "AssertionError: query_agrees" in outcomes["a_law_is_broken"][1]


def test_keys_stay_where_they_are(outcomes):
    said_by(outcomes, "keys_stay")


def test_a_lookup_is_of_its_memory_and_step_where_content_is_not_peeked_at(outcomes):
    """Late, of a copy that went another way, and of another memory; and keys to NumPy go by no device."""
    assert "made on another memory" in said_by(outcomes, "lookups_are_of_their_memory")


def test_a_state_of_another_number_of_devices_is_refused_and_saved(outcomes):
    said = said_by(outcomes, "states_of_others_are_refused")
    assert [("12 rows; expected 10" in each, "10 rows; expected 12" in each) for each in said] == [(True, False)] * 3 + [
        (False, True)
    ] * 3


def test_an_update_may_be_given_the_states_own_arrays(outcomes):
    said_by(outcomes, "rows_of_its_own")


def test_a_batch_over_devices_equals_one_device(outcomes):
    said_by(outcomes, "batch_is_spread")


@pytest.mark.parametrize("around", ["none", "set"])
@pytest.mark.parametrize("kinds", ["explicit explicit", "explicit auto", "auto explicit", "auto auto"])
def test_rows_over_axes_of_any_kind(kinds, around, outcomes):
    said_by(outcomes, f"rows_over_axes {around} {kinds}")


def test_another_mesh_may_be_set(outcomes):
    assert "Make the MeshBackend with the mesh that is set" in said_by(outcomes, "another_mesh_is_set")
