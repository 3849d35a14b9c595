"""Mutation testing of the conformance kit: small changes of the code that users run, of which some law must notice each.

`raremem mutants` draws a sample (`campaign`) of the changes that `operators` can make of `core/` and of the NumPy table, and
tries the laws, and nothing else, on each (`trial`), on the backends of `players`. What no law notices is either explained in
`explained`, where it is said why no user could tell, or it shows that a law is lacking.
"""
