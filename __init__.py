"""Landmarks on any object, without labels."""
