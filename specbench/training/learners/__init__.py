"""What recipes train, a class each."""
