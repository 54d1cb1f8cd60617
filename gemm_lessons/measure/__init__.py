"""Measure: the timing protocol, the roofline, the ladder's table, peers and recorded results."""
