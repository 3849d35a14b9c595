"""Print the page of faults."""

from raremem.reference.faults import table

print(table())
