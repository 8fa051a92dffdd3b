"""Losses as functions of tensors, and the classes by which recipes name them."""
