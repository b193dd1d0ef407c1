"""The network: backbone, attention, normalizing flow, and what scales features between them."""
