"""The layers, each where the paper names it."""
