"""The graph as frozen values: nodes, what is inside arguments, order, names."""
