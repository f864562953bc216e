"""The parts of `neutok train`: the loop, what it reads, saves and says."""
