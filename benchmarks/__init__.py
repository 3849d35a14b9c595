"""Benchmark tasks that run on any backend, the peers they are compared with, and their reports."""
