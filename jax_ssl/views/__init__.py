"""How a view of an image is drawn, cropped, and recoloured on the host or on the device."""
