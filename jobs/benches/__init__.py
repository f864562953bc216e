"""Measurements, each a command of `jobs.bench`."""
