"""What two services use, and nothing else. Imports no service."""
