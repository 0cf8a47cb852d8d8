"""Benchmarks: what a mask costs, here and elsewhere, with the answers checked before anything is timed.

Run with `make bench`, or `python -m benchmarks.masks --help` from the repository root.
"""
