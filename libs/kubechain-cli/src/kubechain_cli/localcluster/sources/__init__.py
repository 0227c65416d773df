"""Where the binaries come from, one module per source."""
