"""What was asked once, each a program of its own; run from a checkout, not in the wheel."""
