"""The embedded pair that writes."""
