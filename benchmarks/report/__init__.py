"""Reports: tables, pages, plots, and the files of a run."""
