"""Engines: what runs models. Each implements `kernel.ports.Engine`."""
