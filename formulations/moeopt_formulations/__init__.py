"""Exact models of expert placement, one file a formulation; the mathematics is in ``formulations/README.md``.

A formulation is a small frozen class that satisfies `moeopt.formulation.Formulation` and is offered through
the entry-point group ``moeopt.formulations``; `moeopt` never imports this package by name.
"""
