"""Shared tasks that run on any backend, their reports, and the command line."""
