"""How a view of an image is drawn, cut out, and finished on the host or on the device."""
