"""`lmk detect`: sources in, files out, here or on a cluster."""
