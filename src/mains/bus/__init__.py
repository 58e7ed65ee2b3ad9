"""The bus: devices, attached to the kernel by name."""
