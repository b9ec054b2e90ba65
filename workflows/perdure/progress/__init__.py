"""How far a run is, as facts come in: the model, its lines, and the screen that shows them."""
