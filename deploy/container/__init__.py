"""What runs inside the image."""
