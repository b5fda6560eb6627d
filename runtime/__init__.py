"""Frames -> crops -> landmarks -> files, without torch."""
