"""What one pass over a source needs: its clips listed, their labels read and joined, their keys made unique."""
