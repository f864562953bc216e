"""Learning the codec: what is lost, who judges, who learns. Sources: arXiv 2509.09550 and XCodec2, its base."""
