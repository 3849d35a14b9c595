"""The tasks of `raremem bench`, a module or a package each."""
