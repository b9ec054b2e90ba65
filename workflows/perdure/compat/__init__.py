"""Other libraries' names over perdure's store: thin layers, no second engine."""
