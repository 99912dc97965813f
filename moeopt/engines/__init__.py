"""Placements out and in: one class an engine, found through the entry-point group `moeopt.engines`.

The protocol is `moeopt.engine.Engine`: `check`, `dump`, `load`; `accepts` and `read` for files in use; `notes`
to serve with.
"""
