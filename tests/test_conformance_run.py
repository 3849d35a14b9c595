"""The run of the laws fails if a backend was never tried."""

import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
pytest_plugins = ["pytester"]


@pytest.mark.parametrize(("left_out", "status"), [(None, 0), ("jax-compiled", 1)])
def test_a_backend_that_was_never_tried_fails_the_run(pytester, left_out, status):
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.path.joinpath("modes.py").write_text((TESTS / "modes.py").read_text())
    pytester.makepyfile(
        test_laws=textwrap.dedent(f"""
            import pytest

            def test_law(request, backend):
                if request.node.callspec.params["backend"] == {left_out!r}:
                    pytest.skip("left out")
        """)
    )
    result = pytester.runpytest_subprocess("--import-mode=importlib", "-p", "no:cacheprovider")
    assert result.ret == status
    result.stdout.fnmatch_lines([f"*no law ran on {left_out}*"] if left_out else ["*1 laws passed*"])
