"""Measures the cost of a step, of raremem and of its peers."""
