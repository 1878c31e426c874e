"""How well maps localize objects: metrics that compare maps with true boxes or masks."""
