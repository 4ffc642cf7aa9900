"""Face verification as evaluation.m does it. May import ``port`` and ``converters``."""
