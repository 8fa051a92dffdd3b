"""Measures of picture quality: what a run reports beside its speed."""
