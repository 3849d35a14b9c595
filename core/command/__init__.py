"""The command `raremem`. It imports the laws and the benchmarks inside functions, since both depend on the core."""
