"""Drafters propose continuations and state how they drew them."""
