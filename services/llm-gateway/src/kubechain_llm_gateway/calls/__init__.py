"""A request from the stream, its call, what is told of it meanwhile, and the result that is published."""
