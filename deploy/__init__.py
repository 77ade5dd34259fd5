"""Steps that prepare what the services run on: migrations, and the private local instances."""
