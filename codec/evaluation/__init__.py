"""Measuring the codec: sound against sound, codes against codes. Source: arXiv 2509.09550, Section 4."""
