"""A person's answer, by whichever road it came, into the spec of the call: the first one counts."""
