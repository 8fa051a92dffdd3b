"""Decoding: drafts, their laws, the parts that make and judge them, and the loops."""
