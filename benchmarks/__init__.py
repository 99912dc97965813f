"""Benchmarks: problems by name, experiments whose rows are stored, tables made of those rows."""
