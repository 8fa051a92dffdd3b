"""Benchmark scripts: they print ratios from one interleaved run and assert nothing."""
