"""What a call passes on its way out: health of the provider, rate limits, fair shares, the queue; and fallbacks."""
