"""A request to a person, from the stream to the channel: read, claimed, asked once, reported."""
