"""What `neutok ship` puts beside a trained codec's weights: where it comes from, how good it is, how it sounds."""
