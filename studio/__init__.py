"""A project on the disk <-> pages in the browser, which write the files that the commands do."""
