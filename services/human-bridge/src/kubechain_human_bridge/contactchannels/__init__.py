"""A ContactChannel and its Secrets: what is wrong with them, and the channel that is used."""
