"""Placements out and in: one class an engine, found through the entry-point group `moeopt.engines`; see `moeopt.engine`."""
