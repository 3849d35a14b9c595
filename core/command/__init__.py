"""The command `raremem`. It imports the laws and the benchmarks late: they stand on the core, and the core not on them."""
