"""Labelled images -> core; unlabelled images -> category."""
