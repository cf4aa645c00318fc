"""Pictures of a run: its views, attention, patch features, reconstructions and curves."""
