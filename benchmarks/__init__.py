"""Shared tasks that run on any backend, their peers and their reports."""
