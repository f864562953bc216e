"""Finished outputs as one dataset: planned, merged, described, sent and verified."""
