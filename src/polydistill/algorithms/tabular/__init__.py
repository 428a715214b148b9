"""Tables in float64: what the papers prove or show without a network."""
