"""The comparison: every system trained and tested by one protocol, its tables and its pictures."""
