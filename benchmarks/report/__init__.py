"""Reports: the pages of a run, and the tables of the docs."""
