"""Builds, describes and saves the images of the services and of NATS: ``python -m scripts.images``."""
