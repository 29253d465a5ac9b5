"""Remote services: the Kubernetes API, and retries."""
