"""What a run leaves: pages, tables and plots."""
