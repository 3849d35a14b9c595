"""Holds laws on JAX without jit. `conftest.py` starts it, with an XLA that makes programs quickly.

It reads a line of JSON for each law, its name and how many cases, and writes one: how many were tried, and the error or none.
"""

import json
import sys
import traceback

from conftest import Small

import raremem
from raremem.reference.laws import LAWS, run

backend, small = raremem.get_backend("jax", compiled=False), Small()
for line in sys.stdin:
    name, examples = json.loads(line)
    tried, error = 0, None
    try:
        tried = run(LAWS[name], backend, examples)
    except Exception:
        error = traceback.format_exc()
    print(json.dumps([tried, error]), flush=True)
    small.pytest_runtest_teardown()
