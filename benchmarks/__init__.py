"""Benchmarks: speed against named peers, in the same run, as ratios of medians."""
