"""Devices that come with Mains."""
