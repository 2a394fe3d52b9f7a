"""Where programs run: one module per kind of device, and what these share."""
