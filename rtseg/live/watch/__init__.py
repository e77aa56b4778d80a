"""How a feed does, in figures: an endpoint for Prometheus, and `rtseg top`, which shows the same to a person."""

from .exporter import Endpoint, serve

__all__ = ["Endpoint", "serve"]
