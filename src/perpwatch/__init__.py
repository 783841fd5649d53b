"""perpwatch: watches every perpetual futures contract of an exchange at once."""
