"""Mutation testing of the conformance kit: a law must break under each small change of the code that users run.

`raremem mutants` draws a sample (`campaign`) of the changes that `operators` makes of `core/` and of the NumPy table. It runs
the laws, and nothing else, on each (`trial`), on the backends of `players`. A mutant that breaks no law is either explained in
`explained`, with the reason why no user could tell, or a law is missing.
"""
