"""Corpus -> stream -> shard -> Hub, as plain functions and iterators."""
