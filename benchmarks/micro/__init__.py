"""Micro-benchmarks: `python -m pytest benchmarks/micro`."""
