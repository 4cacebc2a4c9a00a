"""Exact rolling features: declarations, compiled kernels, and the tables of keys in memory."""
