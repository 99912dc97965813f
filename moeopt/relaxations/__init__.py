"""Relaxations, one file each: lower bounds with a proof that the checker re-proves."""
