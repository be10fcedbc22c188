"""Quantisation: which frames, which ranges, where the Q/DQ nodes stand, and what each layer costs."""
