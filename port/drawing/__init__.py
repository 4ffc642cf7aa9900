"""Pictures of nets: a layered layout of our own, as SVG text or, through matplotlib, as PNG."""
