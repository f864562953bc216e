"""The commands: options, actors pinned to GPUs, retries, progress."""
