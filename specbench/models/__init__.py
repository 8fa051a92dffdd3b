"""Models behind one port: exact toys, the lean decoder, and anything that transformers runs."""
