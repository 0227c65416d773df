"""Links that take one answer without signing in, and the key that signs them."""
