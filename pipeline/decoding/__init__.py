"""Stored bytes -> sound, in processes that may crash without harm."""
