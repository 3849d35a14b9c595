"""Approximate search in a memory that changes at every step."""
