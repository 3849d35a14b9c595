"""The conformance kit: every law of the specification, on a backend of anyone's.

    pytest --pyargs raremem.reference.conformance --raremem-backend mypackage.mymodule:backend

or `raremem conformance --backend mypackage.mymodule:backend`. `plugin` is what pytest loads, `test_laws` what it runs, and
`explain` what is said when a law does not hold. `docs/write-a-backend.md` shows a backend made from nothing.
"""
