"""Training, judging and showing what ships; run from a checkout, not in the wheel."""
