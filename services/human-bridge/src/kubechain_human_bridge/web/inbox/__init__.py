"""The inbox page: people sign in with a Kubernetes token, see what waits for them, and answer."""
