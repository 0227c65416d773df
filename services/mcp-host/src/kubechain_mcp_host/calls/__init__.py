"""A tool request from the stream: whether it may run, its run, and the one result that is published."""
