"""Engines that generate. Each module imports its engine; importing this package imports none."""
