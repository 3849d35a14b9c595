"""The conformance kit: every law of the specification, run on a backend of your own.

    pytest --pyargs raremem.reference.conformance --raremem-backend mypackage.mymodule:backend

or `raremem conformance --backend mypackage.mymodule:backend`. pytest loads `plugin` and runs `test_laws`. The module
`raremem.reference.laws.explain` makes the message of a broken law. `docs/write-a-backend.md` makes a backend from nothing.
"""
