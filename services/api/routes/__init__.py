"""One module for each resource; each lists its routes. They translate HTTP, and decide nothing."""
