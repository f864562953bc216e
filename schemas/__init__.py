"""The records every room agrees on: no tensors, no files, no machines."""
