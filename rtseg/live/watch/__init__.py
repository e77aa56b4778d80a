"""The metrics of a feed: an endpoint for Prometheus, and `rtseg top`, which shows them in a terminal."""

from .exporter import Endpoint, serve

__all__ = ["Endpoint", "serve"]
