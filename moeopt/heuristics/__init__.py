"""Heuristics, one file each; found through the entry-point group `moeopt.methods`."""
