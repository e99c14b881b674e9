"""Exact rows, subsets of their keys and top-k attention in plain torch: any device, type and order of keys.

What a kernel gives is held to it by a test.
"""
