"""Solvers behind one door: `door.Session` in this process, one adapter a solver in a worker process."""
