"""The kernel: durable processes over a journal. It knows no HTTP, no vendor and no wall clock."""
